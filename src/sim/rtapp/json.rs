//! JSON as rt-app takes it: the order of an object's members counts, a name may come twice, and there may be comments in C's
//! manner and a comma behind the last member.

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use std::fmt;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Int(i64),
    /// Any other number.
    Number(f64),
    Text(String),
    List(Vec<Json>),
    /// In their order.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong, with line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(&plain(text)).map_err(|error| {
            let (line, column, what) = (error.line(), error.column(), error.to_string());
            let what = what.split(" at line ").next().unwrap_or_default();
            format!("line {line}, column {column}: {what}")
        })
    }

    /// What it is, for a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// The text with blanks in place of comments and of a comma between a member and an end, so that lines and columns stay what
/// they are.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    // The last two tokens that are no blanks, each by where it is and its first character.
    let mut last = [(0, '['); 2];
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '"' => string(rest),
            '/' if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |at| at + 4),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        if c == '/' && length > 1 {
            let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
            plain.extend(token.chars().map(blank));
            continue;
        }
        if let ('}' | ']', [(_, before), (at, ',')]) = (c, last)
            && !matches!(before, '{' | '[' | ',' | ':')
        {
            plain.replace_range(at..=at, " ");
        }
        if !c.is_whitespace() {
            last = [last[1], (plain.len(), c)];
        }
        plain.push_str(token);
    }
    plain
}

/// The bytes of the string that a text begins with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Values)
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or(Json::Number(value as f64), Json::Int))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rt_app_takes_beyond_json() {
        let text =
            "{ /* one, */ \"a\" : [1, 2 , ], // two }\n \"a\": \"x, } /* \\\" */\" , /* */ }";
        let a = Json::List(vec![Json::Int(1), Json::Int(2)]);
        let b = Json::Text("x, } /* \" */".into());
        assert_eq!(Json::parse(text), Ok(Json::Object(vec![("a".into(), a), ("a".into(), b)])));
        assert_eq!(plain("[1,/*\n*/]").len(), "[1,/*\n*/]".len());
    }

    #[test]
    fn where_it_is_wrong() {
        let error = |text: &str| Json::parse(text).expect_err(text);
        assert!(
            error("{\n /* \u{e9} */ \"a\": }").starts_with("line 2, column 15: expected value")
        );
        for text in ["", "{", "[1,,2]", ",", "\"", "/*", "{\"a\":1}}", "[,]", "{\"a\" 1}", "\"\\"] {
            assert!(error(text).starts_with("line 1, column "), "{text}: {}", error(text));
        }
        assert!(error(&"[".repeat(100_000)).contains("recursion"), "bounded");
    }
}
