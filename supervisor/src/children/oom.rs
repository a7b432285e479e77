//! Whether a process that got a SIGKILL was killed for memory.
//!
//! The kernel tells nobody whom it kills; it counts such kills in the memory controller's files of the process's
//! control group (Linux, `admin-guide/cgroup-v2.rst`, `memory.events`; `cgroup-v1/memory.rst`, `memory.oom_control`).
//! Our children are in our own group. So the counts are looked at now and then, and when a child was killed by somebody
//! else, and a kill was counted shortly before that nobody has accounted for, it is this child's.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How often the counts are taken, at most.
const EVERY: Duration = Duration::from_secs(1);
/// The kernel counts when it chooses, and a large process takes a while to end: what was counted so long ago is another's.
const RECENT: Duration = Duration::from_secs(3);

/// A control group or one of those around it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    /// As the system's administrator names it.
    name: String,
    directory: PathBuf,
}

/// The two versions of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Our group and those around it, innermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Groups {
    version: Version,
    groups: Vec<Group>,
}

/// What was counted at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Processes of our group killed for memory.
    kills: u64,
    /// For each group, how often its own limit was met.
    met: Vec<u64>,
}

impl Groups {
    /// From the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
    fn parse(own: &str, mounts: &str) -> Option<Self> {
        let lines = || own.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let of_one = lines().find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"));
        let (version, path) = match of_one {
            Some((_, path)) => (Version::One, path),
            None => (Version::Two, lines().find(|(controllers, _)| controllers.is_empty())?.1),
        };
        let (root, place) = mounts.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ').skip(3);
            let (root, place) = (left.next()?, left.next()?);
            let mut right = right.split(' ');
            let (kind, options) = (right.next()?, right.nth(1)?);
            let ours = match version {
                Version::One => kind == "cgroup" && options.split(',').any(|name| name == "memory"),
                Version::Two => kind == "cgroup2",
            };
            ours.then_some((root, Path::new(place)))
        })?;
        // What is mounted may be a part of the tree, as in a container.
        let inside = Path::new(path).strip_prefix(root).ok()?;
        let groups = inside.ancestors().map(|inside| Group {
            name: Path::new(root).join(inside).display().to_string(),
            directory: place.join(inside),
        });
        Some(Self { version, groups: groups.collect() })
    }

    fn number(&self, group: &Group, file: [&str; 2], key: &str) -> Option<u64> {
        let text = std::fs::read_to_string(group.directory.join(self.of_version(file))).ok()?;
        if key.is_empty() {
            return text.trim().parse().ok();
        }
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    }

    const fn of_version<'a>(&self, [one, two]: [&'a str; 2]) -> &'a str {
        match self.version {
            Version::One => one,
            Version::Two => two,
        }
    }

    /// `None` when the controller does not count here.
    fn counts(&self) -> Option<Counts> {
        // A group without the controller of its own belongs to the next one that has it.
        let kills = |group| self.number(group, ["memory.oom_control", "memory.events"], "oom_kill");
        let kills = self.groups.iter().find_map(kills)?;
        let key = self.of_version(["", "oom"]);
        let met = |group| self.number(group, ["memory.failcnt", "memory.events.local"], key).unwrap_or(0);
        Some(Counts { kills, met: self.groups.iter().map(met).collect() })
    }

    /// What a group allows, in words; nothing when it allows all there is.
    fn limit(&self, group: &Group) -> Option<String> {
        let bytes = self.number(group, ["memory.limit_in_bytes", "memory.max"], "")?;
        // Version 1 says "no limit" by the largest multiple of a page.
        (bytes < 1 << 60).then(|| format!("the cgroup {} allows {} MiB", group.name, bytes >> 20))
    }
}

/// The counts over time.
#[derive(Debug, Default)]
struct Watch {
    /// Oldest first.
    taken: VecDeque<(Instant, Counts)>,
    /// Kills of which it is known whom they were, or that they were none of ours.
    accounted: u64,
}

impl Watch {
    fn is_due(&self, now: Instant) -> bool {
        self.taken.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= EVERY)
    }

    fn take(&mut self, now: Instant, counts: Counts) {
        // One that is old enough to compare with is kept, and all younger ones.
        while self.taken.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= RECENT) {
            self.taken.pop_front();
        }
        self.taken.push_back((now, counts));
    }

    /// Whether a kill is to be accounted for, and then the number of the group whose limit was met, if it was one's.
    fn claim(&mut self, now: Instant, counts: &Counts) -> Option<Option<usize>> {
        let old = |(at, _): &&(Instant, Counts)| now.saturating_duration_since(*at) >= RECENT;
        let (_, before) = self.taken.iter().rev().find(old).or(self.taken.front())?;
        let accounted = self.accounted.max(before.kills);
        if counts.kills <= accounted {
            return None;
        }
        self.accounted = accounted + 1;
        Some(counts.met.iter().zip(&before.met).position(|(now, before)| now > before))
    }
}

static GROUPS: LazyLock<Option<Groups>> = LazyLock::new(|| {
    let read = |what| std::fs::read_to_string(Path::new("/proc/self").join(what)).ok();
    Groups::parse(&read("cgroup")?, &read("mountinfo")?)
});
static WATCH: LazyLock<Mutex<Watch>> = LazyLock::new(Mutex::default);

/// Takes the counts when that is due. Call it now and then, and before a child is started.
pub fn look() {
    let mut watch = WATCH.lock();
    let now = Instant::now();
    if watch.is_due(now)
        && let Some(counts) = GROUPS.as_ref().and_then(Groups::counts)
    {
        watch.take(now, counts);
    }
}

/// Why a child that was killed by nobody we know was killed, when it was for memory.
#[must_use]
pub fn reason() -> Option<String> {
    let groups = GROUPS.as_ref()?;
    let counts = groups.counts()?;
    let claimed = WATCH.lock().claim(Instant::now(), &counts)?;
    let limit = claimed.and_then(|number| groups.limit(groups.groups.get(number)?));
    let limit = limit.unwrap_or_else(|| "the host had none left".to_owned());
    Some(format!("for lack of memory; {limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "30 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";

    fn names(groups: &Groups) -> Vec<&str> {
        groups.groups.iter().map(|group| group.name.as_str()).collect()
    }

    #[test]
    fn our_group_is_found_with_either_version_and_inside_a_container() {
        let found = Groups::parse("0::/user.slice/vm.scope\n", TWO).expect("version 2");
        assert_eq!(found.version, Version::Two);
        assert_eq!(names(&found), ["/user.slice/vm.scope", "/user.slice", "/"]);
        assert_eq!(found.groups[1].directory, Path::new("/sys/fs/cgroup/user.slice"));

        let mixed = "33 30 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                     36 30 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let found = Groups::parse("9:name=systemd:/\n4:cpuset,memory:/a\n0::/\n", mixed).expect("version 1");
        assert_eq!((found.version, names(&found)), (Version::One, vec!["/a", "/"]));
        assert_eq!(found.groups[0].directory, Path::new("/sys/fs/cgroup/memory/a"));

        let part = "36 30 0:27 /docker/5 /sys/fs/cgroup ro - cgroup2 cgroup rw";
        let found = Groups::parse("0::/docker/5/b\n", part).expect("a part of the tree");
        assert_eq!(names(&found), ["/docker/5/b", "/docker/5/"]);
        assert_eq!(found.groups[0].directory, Path::new("/sys/fs/cgroup/b"));
        assert_eq!(Groups::parse("0::/elsewhere\n", part), None);
        assert_eq!(Groups::parse("", TWO), None);
        assert_eq!(Groups::parse("0::/\n", ""), None);
    }

    fn put(group: &Group, file: &str, text: &str) {
        std::fs::create_dir_all(&group.directory).expect("directory");
        std::fs::write(group.directory.join(file), text).expect("write");
    }

    fn below(directory: &Path, version: Version) -> Groups {
        let group = |name: &str| Group { name: name.into(), directory: directory.join(&name[1..]) };
        Groups { version, groups: vec![group("/a/b"), group("/a")] }
    }

    #[test]
    fn what_is_read_of_version_2() {
        let directory = tempfile::tempdir().expect("tempdir");
        let groups = below(directory.path(), Version::Two);
        assert_eq!(groups.counts(), None, "nobody counts");
        // The inner group has no controller.
        put(&groups.groups[0], "cgroup.procs", "1\n");
        put(
            &groups.groups[1],
            "memory.events",
            "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n",
        );
        put(&groups.groups[1], "memory.events.local", "low 0\nmax 7\noom 3\noom_kill 0\n");
        assert_eq!(groups.counts(), Some(Counts { kills: 2, met: vec![0, 3] }));
        put(&groups.groups[1], "memory.max", "max\n");
        assert_eq!(groups.limit(&groups.groups[1]), None);
        put(&groups.groups[1], "memory.max", "805306368\n");
        assert_eq!(groups.limit(&groups.groups[1]).as_deref(), Some("the cgroup /a allows 768 MiB"));
    }

    #[test]
    fn what_is_read_of_version_1() {
        let directory = tempfile::tempdir().expect("tempdir");
        let groups = below(directory.path(), Version::One);
        put(&groups.groups[0], "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n");
        put(&groups.groups[0], "memory.failcnt", "17\n");
        assert_eq!(groups.counts(), Some(Counts { kills: 5, met: vec![17, 0] }));
        put(&groups.groups[0], "memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(groups.limit(&groups.groups[0]), None);
        put(&groups.groups[0], "memory.limit_in_bytes", "134217728\n");
        assert_eq!(groups.limit(&groups.groups[0]).as_deref(), Some("the cgroup /a/b allows 128 MiB"));
    }

    fn counts(kills: u64, met: [u64; 2]) -> Counts {
        Counts { kills, met: met.to_vec() }
    }

    #[test]
    fn each_kill_explains_one_death_and_an_old_one_none() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut watch = Watch::default();
        assert_eq!(watch.claim(at(0), &counts(9, [0, 0])), None, "nothing to compare with");
        watch.take(at(0), counts(9, [4, 4]));
        assert_eq!(watch.claim(at(10), &counts(9, [4, 4])), None, "somebody's kill -9");
        // The count was taken between the kernel's choice and the end.
        watch.take(at(1000), counts(11, [4, 6]));
        assert_eq!(watch.claim(at(1500), &counts(11, [4, 6])), Some(Some(1)), "the outer group's limit");
        assert_eq!(watch.claim(at(1500), &counts(11, [4, 6])), Some(Some(1)));
        assert_eq!(watch.claim(at(1500), &counts(11, [4, 6])), None, "two were counted");
        assert_eq!(watch.claim(at(1600), &counts(12, [5, 6])), Some(Some(0)), "the inner group's limit");
        for second in 2..20 {
            assert!(watch.is_due(at(second * 1000)));
            watch.take(at(second * 1000), counts(13, [5, 6]));
            assert!(!watch.is_due(at(second * 1000 + 999)));
            assert!(watch.taken.len() < 6, "old ones go");
        }
        assert_eq!(watch.claim(at(19_500), &counts(13, [5, 6])), None, "that was somebody else");
        assert_eq!(watch.claim(at(19_500), &counts(14, [5, 6])), Some(None), "the host had none left");
    }
}
