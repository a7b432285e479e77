//! What apt complains of: that another one is at work, or a sentence that says what to do.

/// Why apt did not do it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Another one is at work: who.
    #[error("another apt is at work ({0}): run this again when it has ended")]
    Locked(String),
    /// A sentence.
    #[error("{0}")]
    Failed(String),
}

/// What apt or dpkg complained of; nothing when they said nothing.
pub fn trouble(text: &str) -> Option<Trouble> {
    if let Some(line) = text.lines().find(|line| is_lock(line)) {
        let process = line.split("held by process ").nth(1).or_else(|| line.split("with pid ").nth(1));
        let who = process
            .map_or_else(|| "another process".to_owned(), |p| format!("process {}", p.trim_end_matches('.')));
        return Some(Trouble::Locked(who));
    }
    sentence(text).map(Trouble::Failed)
}

fn is_lock(line: &str) -> bool {
    line.contains("Could not get lock")
        || line.contains("lock was locked by another process")
        || (line.contains("is another process using it?") && !line.contains("Permission denied"))
}

/// What to do, by what apt says.
const ADVICE: &[(&[&str], &str)] = &[
    (&["No space left", "enough free space"], "there is no room on the disk: make some, then run this again"),
    (
        &[
            "resolving",
            "resolve",
            "Could not connect",
            "Network is unreachable",
            "Connection failed",
            "timed out",
            "Failed to fetch",
            "Unable to fetch",
        ],
        "an archive cannot be reached: look at the network and at apt's sources and proxy in /etc/apt, then run this again",
    ),
    (
        &["not signed", "NO_PUBKEY", "signature"],
        "an archive's signature is not accepted: mend apt's sources, then run this again",
    ),
    (
        &["held", "unmet dependencies", "generated breaks"],
        "apt cannot install it beside what is there: `apt-mark showhold` lists what is held",
    ),
    (
        &["Unable to locate", "no installation candidate", "was not found"],
        "this machine's apt sources do not have it: they must name Debian's section main",
    ),
    (
        &["Permission denied", "not in the sudoers", "password is required", "not allowed to"],
        "this needs root: run it as one who may use sudo",
    ),
];

/// Complaints that are shown; of one cause there may be as many as packages.
const SHOWN: usize = 2;

/// Apt's complaints as one sentence, with what to do.
pub fn sentence(text: &str) -> Option<String> {
    let mut errors: Vec<&str> = vec![];
    let marked = |line: &&str| line.starts_with("E: ") || line.starts_with("dpkg: error");
    for line in text.lines().filter(marked) {
        let line = line.trim_start_matches("E: ").trim();
        if !errors.contains(&line) {
            errors.push(line);
        }
    }
    if errors.is_empty() {
        errors.extend(text.lines().map(str::trim).rfind(|line| !line.is_empty()));
    }
    let more = errors.len().saturating_sub(SHOWN);
    errors.truncate(SHOWN);
    let mut said = errors.join("; ");
    if more > 0 {
        said = format!("{said}; and {more} more");
    }
    let advice = ADVICE.iter().find(|(words, _)| words.iter().any(|word| text.contains(word)));
    match advice {
        _ if said.is_empty() => None,
        Some((_, advice)) => Some(format!("{advice} (apt says: {said})")),
        None => Some(format!("apt says: {said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_apt_at_work_is_no_failure_whichever_lock_it_holds() {
        for (text, who) in [
            (
                "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 6687 (apt-get)\n\
                 E: Unable to lock directory /var/lib/apt/lists/\n",
                "process 6687 (apt-get)",
            ),
            (
                "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 9030 (unattended-upgr)\n\
                 E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?\n",
                "process 9030 (unattended-upgr)",
            ),
            (
                "E: Unable to lock the administration directory (/var/lib/dpkg/), is another process using it?\n",
                "another process",
            ),
            (
                "dpkg: error: dpkg database lock was locked by another process with pid 9229\n\
                 Note: removing the lock file is always wrong, can damage the locked area\n\
                 E: Sub-process /usr/bin/dpkg returned an error code (2)\n",
                "process 9229",
            ),
        ] {
            assert_eq!(trouble(text), Some(Trouble::Locked(who.to_owned())), "{text}");
        }
        let not_root = "E: Could not open lock file /var/lib/dpkg/lock-frontend - open (13: Permission denied)\n\
                        E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), are you root?\n";
        assert!(matches!(trouble(not_root), Some(Trouble::Failed(why)) if why.contains("this needs root")));
    }

    #[test]
    fn what_apt_complains_of_is_a_sentence_with_what_to_do() {
        for (text, advice) in [
            ("E: Unable to locate package no-such-package\n", "apt sources do not have it"),
            (
                "E: Failed to fetch http://archive/x.deb  Temporary failure resolving 'archive'\n\
                 E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?\n",
                "look at the network",
            ),
            ("E: You don't have enough free space in /var/cache/apt/archives/.\n", "no room on the disk"),
            (
                "dpkg: error processing archive /x.deb (--unpack): cannot copy extracted data: No space left on device\n\
                 E: Sub-process /usr/bin/dpkg returned an error code (1)\n",
                "no room on the disk",
            ),
            ("E: Unable to correct problems, you have held broken packages.\n", "apt-mark showhold"),
        ] {
            let said = sentence(text).expect(text);
            assert!(said.contains(advice), "{said}");
            assert!(!said.contains("E: ") && !said.contains('\n'), "{said}");
        }
        let interrupted =
            "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem. \n";
        assert!(sentence(interrupted).expect("words").contains("dpkg --configure -a"));
        let many: String = (0..30).map(|n| format!("E: Failed to fetch number {n}\n")).collect();
        let said = sentence(&many).expect("words");
        assert!(said.ends_with("number 0; Failed to fetch number 1; and 28 more)"), "{said}");
        assert_eq!(sentence(""), None);
    }
}
