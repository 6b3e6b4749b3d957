# Sourced by the other scripts: apt with sources of its own, beside the user's, which stay as they are.

# The Debian mirror that this machine uses.
debian_mirror() {
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
		grep -v -- '-security' | sort -u | head -n 1
}

# apt_aside FOLDER SUITE...: fetches the package lists of these suites into FOLDER and sets
# $apt_options for the apt commands that shall see them. Fails without a Debian mirror.
apt_aside() {
	aside=$1
	shift
	mirror=$(debian_mirror)
	[ -n "$mirror" ] || return 1
	mkdir -p "$aside/lists/partial" "$aside/archives/partial"
	: >"$aside/sources.list"
	for suite; do
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >>"$aside/sources.list"
	done
	apt_options="-o Dir::Etc::sourcelist=$aside/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$aside/lists
		-o Dir::Cache=$aside -o Dir::Cache::archives=$aside/archives -o APT::Sandbox::User= -o Acquire::Languages=none"
	# shellcheck disable=SC2086 # a list of words
	apt-get $apt_options update -qq
}
