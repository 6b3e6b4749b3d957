//! Kernels that a guest can boot, and where they are found.

use anyhow::{Context, Result, bail};
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The series that the tests cover, oldest first. The last one is "the newest".
pub const SERIES: [&str; 4] = ["6.12", "6.16", "6.18", "7.3"];

/// The series of which no distribution packages a kernel with sched_ext: `make kernel-6.12` builds it.
pub const UNPACKAGED: &str = "6.12";

/// Debian's own 6.12, whose sched_ext is off: the kernel that must be refused.
pub const STOCK: &str = "6.12-stock";

/// A kernel image with its configuration.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The series it stands for: `6.12`, `7.3`, or [`STOCK`].
    pub series: String,
    /// What `uname -r` says in the guest.
    pub release: String,
    /// The bootable image (`bzImage`).
    pub image: PathBuf,
    /// Its `.config`.
    pub config: PathBuf,
}

impl Kernel {
    /// Opens an image. Its configuration lies beside it, as `config` or `config-RELEASE`.
    pub fn open(image: &Path) -> Result<Self> {
        let release = release(image)?;
        let folder = image.parent().unwrap_or(Path::new("."));
        let config = [folder.join("config"), folder.join(format!("config-{release}"))]
            .into_iter()
            .find(|path| path.is_file())
            .with_context(|| format!("no config or config-{release} beside {}", image.display()))?;
        let series = release.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        Ok(Self { series, release, image: image.into(), config })
    }

    /// Whether sched_ext is compiled in.
    pub fn has_sched_ext(&self) -> bool {
        fs::read_to_string(&self.config)
            .is_ok_and(|text| text.lines().any(|line| line == "CONFIG_SCHED_CLASS_EXT=y"))
    }

    /// The kernel of this series: the host's own, else one in `.cache/kernels`, else one in
    /// `../shared/kernels`, both below `root`, the repository.
    pub fn find(series: &str, root: &Path) -> Result<Self> {
        let host = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let images = [
            Path::new("/boot").join(format!("vmlinuz-{}", host.trim())),
            root.join(".cache/kernels").join(series).join("vmlinuz"),
            root.join("../shared/kernels").join(series).join("vmlinuz"),
        ];
        let is_meant = |kernel: &Kernel| {
            let stock = series == STOCK;
            kernel.has_sched_ext() != stock && series.trim_end_matches("-stock") == kernel.series
        };
        let found = images
            .iter()
            .filter(|image| fs::File::open(image).is_ok())
            .filter_map(|image| Kernel::open(image).ok())
            .find(is_meant);
        match found {
            Some(kernel) => Ok(Kernel { series: series.into(), ..kernel }),
            None if series == UNPACKAGED => bail!(
                "no kernel 6.12 with sched_ext, which nobody packages: `make kernel-6.12` builds it (some 20 minutes)"
            ),
            None => bail!(
                "no kernel {series}: run `scripts/kernels.sh {series}`, or name another one in $KERNEL"
            ),
        }
    }

    /// The kernel named in `$KERNEL`, if any: then it is the only one to be tested.
    pub fn from_env() -> Result<Option<Self>> {
        env::var_os("KERNEL")
            .map(|image| Self::open(Path::new(&image)).context("opening $KERNEL"))
            .transpose()
    }
}

/// The release of a bzImage, from its setup header (Documentation/arch/x86/boot.rst, `kernel_version`).
fn release(image: &Path) -> Result<String> {
    const MAGIC: usize = 0x202;
    const VERSION_AT: usize = 0x20e;
    const BASE: usize = 0x200;
    let bytes = fs::read(image).with_context(|| format!("reading {}", image.display()))?;
    let version = || {
        if bytes.get(MAGIC..MAGIC + 4)? != b"HdrS" {
            return None;
        }
        let low = *bytes.get(VERSION_AT)?;
        let high = *bytes.get(VERSION_AT + 1)?;
        let text = bytes.get(BASE + usize::from(u16::from_le_bytes([low, high]))..)?;
        let end = text.iter().position(|byte| matches!(byte, 0 | b' '))?;
        String::from_utf8(text[..end].to_vec()).ok()
    };
    version().with_context(|| format!("{} is no x86 kernel image", image.display()))
}
