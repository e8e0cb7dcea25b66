//! MySQL from Debian's `sid` suite, without adding that suite to the system.
//!
//! apt works with lists, a cache and an empty status file of its own. So it resolves all dependencies down to
//! the C library, whatever is installed on the machine. The archive's address is the one that the machine's
//! apt configuration uses for Debian.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::make_dir;
use crate::process::run;
use crate::{say, tools};

const SUITE: &str = "sid";
const PACKAGES: [&str; 2] = ["mysql-server-core", "mysql-client-core"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const DEBIAN_SUITES: [&str; 11] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// Puts MySQL's server and client with all their dependencies into `root`.
pub(crate) fn fetch_mysql(root: &Path) -> Result<()> {
    tools::require("apt-get", None)?;
    tools::require("dpkg-deb", Some("dpkg"))?;
    let archives = machine_archives();
    if archives.is_empty() {
        bail!(
            "no Debian archive in /etc/apt/sources.list or /etc/apt/sources.list.d: MySQL is taken from \
             Debian's {SUITE} suite at the archive the machine already uses. Add one there, or point the \
             three TANDEM_* variables at servers of your own"
        );
    }
    let work = root.join(".apt");
    let mut last = None;
    for archive in &archives {
        match fetch_from(archive, &work, root) {
            Ok(()) => {
                return fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()));
            }
            Err(e) => last = Some(e.context(format!("from {archive}"))),
        }
        crate::cache::remove_dir(&work)?;
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("nothing tried"))).context(
        "MySQL cannot be had from Debian's sid suite now (the suite moves: it may be in between two states, \
         try later; or the network or apt's proxy is at fault, see above)",
    )
}

fn fetch_from(archive: &str, work: &Path, root: &Path) -> Result<()> {
    let apt = PrivateApt::create(work, archive)?;
    say("reading Debian's package lists for MySQL ...");
    run(apt.get().args(["-qq", "update"]))?;
    let plan = run(apt.get().args(["--no-install-recommends", "-s", "install"]).args(PACKAGES))?;
    let packages = planned_packages(&plan);
    let version = packages
        .iter()
        .find(|(name, _)| name == PACKAGES[0])
        .map(|(_, version)| version.clone())
        .context("apt's plan does not hold the MySQL server")?;
    let names: Vec<&str> = packages.iter().map(|(name, _)| name.as_str()).collect();
    let size = run(apt.get().args(["-qq", "--print-uris", "download"]).args(&names))
        .map_or(0, |uris| total_size(&uris));
    say(&format!("fetching MySQL {version} ({} packages, {} MB) ...", names.len(), size / 1_000_000));
    let debs = work.join("debs");
    make_dir(&debs)?;
    run(apt.get().args(["-qq", "download"]).args(&names).current_dir(&debs))?;
    say("unpacking MySQL ...");
    for entry in fs::read_dir(&debs).with_context(|| format!("list {}", debs.display()))? {
        let deb = entry.context("list the downloaded packages")?.path();
        if deb.extension().is_some_and(|e| e == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(root))?;
        }
    }
    let list: Vec<String> = packages.iter().map(|(name, version)| format!("{name} {version}")).collect();
    fs::write(root.join("packages.txt"), list.join("\n") + "\n").context("write the list of packages")
}

/// apt with lists, cache and status of its own.
struct PrivateApt {
    options: Vec<String>,
}

impl PrivateApt {
    fn create(work: &Path, archive: &str) -> Result<Self> {
        for sub in ["lists/partial", "cache/archives/partial"] {
            make_dir(&work.join(sub))?;
        }
        let at = |name: &str| -> PathBuf { work.join(name) };
        let signed_by =
            if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        fs::write(at("status"), "").context("write an empty status file")?;
        fs::write(at("sources.list"), format!("deb {signed_by}{archive} {SUITE} main\n"))
            .context("write a sources list")?;
        let mut options = vec![
            format!("-oDir::Etc::sourcelist={}", at("sources.list").display()),
            "-oDir::Etc::sourceparts=-".to_owned(),
            "-oDir::Etc::preferences=/dev/null".to_owned(),
            "-oDir::Etc::preferencesparts=-".to_owned(),
            format!("-oDir::State::Lists={}", at("lists").display()),
            format!("-oDir::State::status={}", at("status").display()),
            format!("-oDir::Cache={}", at("cache").display()),
            "-oAcquire::Retries=3".to_owned(),
            "-oAcquire::Languages=none".to_owned(),
        ];
        if nix::unistd::geteuid().is_root() {
            // apt's own user may not read the cache folder in root's home.
            options.push("-oAPT::Sandbox::User=root".to_owned());
        }
        Ok(Self { options })
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.args(&self.options).env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// Names and versions in the output of `apt-get -s install`.
fn planned_packages(plan: &str) -> Vec<(String, String)> {
    plan.lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("Inst ")?.split_whitespace();
            let name = words.next()?.to_owned();
            let version = words.find_map(|w| w.strip_prefix('('))?.to_owned();
            Some((name, version))
        })
        .collect()
}

/// Sum of the sizes in the output of `apt-get --print-uris`.
fn total_size(uris: &str) -> u64 {
    uris.lines().filter_map(|l| l.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}

/// One source of packages from apt's configuration.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
}

impl Source {
    fn is_debian(&self) -> bool {
        self.components.iter().any(|c| c == "main")
            && (self.named_debian() || self.suites.iter().any(|s| DEBIAN_SUITES.contains(&s.as_str())))
    }

    fn named_debian(&self) -> bool {
        self.uri.trim_end_matches('/').ends_with("/debian")
    }
}

/// Addresses of Debian archives in the machine's configuration, the likeliest first.
fn machine_archives() -> Vec<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(dir) = fs::read_dir("/etc/apt/sources.list.d") {
        let mut parts: Vec<PathBuf> = dir.flatten().map(|e| e.path()).collect();
        parts.sort();
        files.extend(parts);
    }
    let sources = files
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(path).ok()?;
            match path.extension()?.to_str()? {
                "sources" => Some(parse_deb822(&text)),
                "list" => Some(parse_list(&text)),
                _ => None,
            }
        })
        .flatten()
        .collect();
    debian_archives(sources)
}

fn debian_archives(mut sources: Vec<Source>) -> Vec<String> {
    sources.retain(Source::is_debian);
    sources.sort_by_key(|s| !s.named_debian()); // a stable sort keeps the configuration's order
    let mut uris: Vec<String> = Vec::new();
    for source in sources {
        if !uris.contains(&source.uri) {
            uris.push(source.uri);
        }
    }
    uris
}

/// The one-line format: `deb [options] uri suite component...`.
fn parse_list(text: &str) -> Vec<Source> {
    let line = |line: &str| -> Option<Source> {
        let line = line.split('#').next()?.trim();
        let mut rest = line.strip_prefix("deb")?;
        rest = rest.strip_prefix(char::is_whitespace)?.trim_start();
        if let Some(options) = rest.strip_prefix('[') {
            rest = options.split_once(']')?.1;
        }
        let mut words = rest.split_whitespace().map(str::to_owned);
        let (uri, suite) = (words.next()?, words.next()?);
        Some(Source { uri, suites: vec![suite], components: words.collect() })
    };
    text.lines().filter_map(line).collect()
}

/// The deb822 format: stanzas of `Field: values`, continued on indented lines.
fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut stanza: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(stanza_sources(&std::mem::take(&mut stanza)));
        } else if line.starts_with(char::is_whitespace) {
            if let Some((_, values)) = stanza.last_mut() {
                values.extend(line.split_whitespace().map(str::to_owned));
            }
        } else if let Some((field, values)) = line.split_once(':') {
            let values = values.split_whitespace().map(str::to_owned).collect();
            stanza.push((field.trim().to_ascii_lowercase(), values));
        }
    }
    sources
}

fn stanza_sources(stanza: &[(String, Vec<String>)]) -> Vec<Source> {
    let field =
        |name: &str| stanza.iter().find(|(field, _)| field == name).map_or(&[][..], |(_, v)| v.as_slice());
    let disabled = field("enabled").first().is_some_and(|v| v.eq_ignore_ascii_case("no"));
    if disabled || !field("types").iter().any(|t| t == "deb") {
        return Vec::new();
    }
    let source = |uri: &String| Source {
        uri: uri.clone(),
        suites: field("suites").to_vec(),
        components: field("components").to_vec(),
    };
    field("uris").iter().map(source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_format() {
        let text = "# comment\n\
            deb http://a.example/debian bookworm main contrib # why\n\
            deb [arch=amd64 signed-by=/k.gpg] http://b.example/debian/ trixie main\n\
            deb-src http://c.example/debian bookworm main\n\
            debug http://d.example/debian bookworm main\n\
            deb https://e.example/apt cloud-bookworm main\n";
        let sources = parse_list(text);
        assert_eq!(sources.len(), 3);
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert_eq!(debian_archives(sources), ["http://a.example/debian", "http://b.example/debian/"]);
    }

    #[test]
    fn deb822_format() {
        let text = "Types: deb deb-src\n# comment inside\nURIs: http://a.example/debian\n http://b.example/debian\n\
            Suites: bookworm bookworm-updates\nComponents: main\n\n\n\
            Types: deb\nURIs: http://a.example/debian-security\nSuites: bookworm-security\nComponents: main\n\n\
            Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: sid\nComponents: main\n\n\
            Types: deb-src\nURIs: http://src.example/debian\nSuites: sid\nComponents: main\n";
        assert_eq!(
            debian_archives(parse_deb822(text)),
            ["http://a.example/debian", "http://b.example/debian"]
        );
    }

    #[test]
    fn an_archive_under_another_name_is_recognised_by_its_suite_and_comes_last() {
        let text = "deb mirror+file:/etc/apt/mirrors/debian.list bookworm main\n\
            deb http://a.example/debian bookworm main\n\
            deb http://b.example/node nodistro main\n\
            deb http://c.example/tools bookworm contrib\n";
        assert_eq!(
            debian_archives(parse_list(text)),
            ["http://a.example/debian", "mirror+file:/etc/apt/mirrors/debian.list"]
        );
    }

    #[test]
    fn the_plan_names_packages_and_versions() {
        let plan = "Reading package lists...\n\
            Inst gcc-16-base (16-1 Debian:unstable [amd64]) []\n\
            Inst libc6 (2.42-5 Debian:unstable [amd64])\n\
            Conf libc6 (2.42-5 Debian:unstable [amd64])\n\
            Inst mysql-server-core (9.7.4-1 Debian:unstable [amd64])\n";
        let packages = planned_packages(plan);
        assert_eq!(packages.len(), 3);
        assert_eq!(packages[2], ("mysql-server-core".to_owned(), "9.7.4-1".to_owned()));
    }

    #[test]
    fn sizes_add_up() {
        let uris = "'http://x/a.deb' a.deb 1000 SHA256:aa\n'http://x/b.deb' b.deb 23 SHA256:bb\n";
        assert_eq!(total_size(uris), 1023);
    }
}
