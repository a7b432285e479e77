//! Users and groups of the Debian disk: base-passwd's lists and the `sysusers.d` fragments of packages (sysusers.d(5)).

use super::error::ImageError;
use super::tree::Tree;
use std::fmt::Write as _;

/// First id for accounts that ask for none; they are given downwards from here, as systemd-sysusers does.
const DYNAMIC_TOP: u32 = 997;

/// Users that packages make in maintainer scripts rather than by a fragment: name, gid of a known group, home.
const SCRIPTED: [(&str, u32, &str); 3] =
    [("_apt", 65534, "/nonexistent"), ("messagebus", 0, "/nonexistent"), ("sshd", 65534, "/run/sshd")];

#[derive(Debug, Clone)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    gecos: String,
    home: String,
    shell: String,
}

#[derive(Debug, Clone)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// The accounts of one system.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

impl Accounts {
    /// Reads base-passwd's master lists.
    pub fn from_master(passwd: &str, group: &str) -> Accounts {
        let users = passwd.lines().filter_map(|line| {
            let mut fields = line.split(':').map(str::to_owned);
            let (name, _) = (fields.next()?, fields.next()?);
            let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(User { name, uid, gid, gecos: fields.next()?, home: fields.next()?, shell: fields.next()? })
        });
        let groups = group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _) = (fields.next()?.to_owned(), fields.next()?);
            Some(Group { name, gid: fields.next()?.parse().ok()?, members: Vec::new() })
        });
        Accounts { users: users.collect(), groups: groups.collect() }
    }

    /// Adds what a `sysusers.d` fragment asks for. Lines of other kinds than `u`, `g` and `m` are passed over.
    pub fn apply_sysusers(&mut self, fragment: &str) {
        for line in fragment.lines() {
            let words = words(line);
            let word = |index: usize| words.get(index).map(String::as_str).filter(|word| *word != "-");
            let (Some(kind), Some(name)) = (word(0), word(1)) else { continue };
            match kind.trim_end_matches(['!', '=', '?']) {
                "u" => self.add_user(name, word(2), word(3), word(4), word(5)),
                "g" => drop(self.add_group(name, word(2).and_then(|id| id.parse().ok()))),
                "m" => self.add_member(name, word(2)),
                _ => {}
            }
        }
    }

    /// Adds the users that maintainer scripts would make.
    pub fn add_scripted(&mut self) {
        for (name, gid, home) in SCRIPTED {
            let id = (gid != 0).then(|| format!("-:{gid}"));
            self.add_user(name, id.as_deref(), None, Some(home), None);
        }
    }

    fn add_user(
        &mut self,
        name: &str,
        id: Option<&str>,
        gecos: Option<&str>,
        home: Option<&str>,
        shell: Option<&str>,
    ) {
        if self.users.iter().any(|user| user.name == name) {
            return;
        }
        let (uid, group) = match id.map(|id| id.split_once(':').unwrap_or((id, ""))) {
            Some((uid, group)) => (uid.parse().ok(), Some(group).filter(|group| !group.is_empty())),
            None => (None, None),
        };
        let uid = uid.filter(|uid| self.users.iter().all(|user| user.uid != *uid));
        let uid = uid.unwrap_or_else(|| self.free_id());
        let gid = match group {
            Some(group) => match (group.parse().ok(), self.gid(group)) {
                // A number that no group has yet becomes the user's own group.
                (Some(gid), _) if self.groups.iter().all(|group| group.gid != gid) => {
                    self.add_group(name, Some(gid))
                }
                (Some(gid), _) | (None, Some(gid)) => gid,
                (None, None) => self.add_group(group, None),
            },
            None => self.add_group(name, Some(uid)),
        };
        self.users.push(User {
            name: name.into(),
            uid,
            gid,
            gecos: gecos.unwrap_or("").into(),
            home: home.unwrap_or("/").into(),
            shell: shell.unwrap_or("/usr/sbin/nologin").into(),
        });
    }

    fn add_group(&mut self, name: &str, id: Option<u32>) -> u32 {
        if let Some(gid) = self.gid(name) {
            return gid;
        }
        let id = id.filter(|id| self.groups.iter().all(|group| group.gid != *id));
        let gid = id.unwrap_or_else(|| self.free_id());
        self.groups.push(Group { name: name.into(), gid, members: Vec::new() });
        gid
    }

    fn add_member(&mut self, user: &str, group: Option<&str>) {
        let Some(group) = group else { return };
        self.add_user(user, None, None, None, None);
        self.add_group(group, None);
        for entry in self.groups.iter_mut().filter(|entry| entry.name == group) {
            entry.members.push(user.into());
        }
    }

    fn free_id(&self) -> u32 {
        let taken = |id: &u32| {
            self.users.iter().any(|user| user.uid == *id) || self.groups.iter().any(|group| group.gid == *id)
        };
        (100..=DYNAMIC_TOP).rev().find(|id| !taken(id)).unwrap_or(DYNAMIC_TOP)
    }

    /// Id of a group.
    pub fn gid(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|group| group.name == name).map(|group| group.gid)
    }

    /// Id and group of a user that the recipe needs.
    pub fn need_user(&self, name: &str) -> Result<(u32, u32), ImageError> {
        let user = self.users.iter().find(|user| user.name == name);
        user.map(|user| (user.uid, user.gid))
            .ok_or_else(|| ImageError::Missing { what: "user", name: name.into() })
    }

    /// Writes `/etc/passwd`, `group`, `shadow` and `gshadow`. root has no password, all others can't log in.
    pub fn write(&self, tree: &mut Tree) {
        let [mut passwd, mut shadow, mut group, mut gshadow] = std::array::from_fn(|_| String::new());
        for user in &self.users {
            let User { name, uid, gid, gecos, home, shell } = user;
            let password = if *uid == 0 { "" } else { "*" };
            writeln!(passwd, "{name}:x:{uid}:{gid}:{gecos}:{home}:{shell}")
                .expect("writing to a string never fails");
            writeln!(shadow, "{name}:{password}:20000:0:99999:7:::")
                .expect("writing to a string never fails");
        }
        for Group { name, gid, members } in &self.groups {
            let members = members.join(",");
            writeln!(group, "{name}:x:{gid}:{members}").expect("writing to a string never fails");
            writeln!(gshadow, "{name}:*::{members}").expect("writing to a string never fails");
        }
        let shadow_gid = self.gid("shadow").unwrap_or(0);
        for (path, text, mode, gid) in [
            ("etc/passwd", passwd, 0o644, 0),
            ("etc/group", group, 0o644, 0),
            ("etc/shadow", shadow, 0o640, shadow_gid),
            ("etc/gshadow", gshadow, 0o640, shadow_gid),
        ] {
            tree.file(path, text, mode);
            tree.chown(path, 0, gid);
        }
    }
}

/// Splits a line into words; double quotes hold blanks together, `#` begins a comment line.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut open) = (Vec::new(), String::new(), false, false);
    for symbol in line.trim().chars() {
        match symbol {
            '#' if words.is_empty() && !open => return words,
            '"' => (quoted, open) = (!quoted, true),
            ' ' | '\t' if !quoted => {
                if open {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            _ => {
                word.push(symbol);
                open = true;
            }
        }
    }
    if open {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(tree: &Tree, path: &str) -> String {
        tree.need_text(path).expect("written")
    }

    #[test]
    fn master_lists_and_fragments_come_together() {
        let mut accounts = Accounts::from_master(
            "root:*:0:0:root:/root:/bin/bash\nwww-data:*:33:33:www-data:/var/www:/usr/sbin/nologin\n",
            "root:*:0:\nshadow:*:42:\nwww-data:*:33:\nnogroup:*:65534:\n",
        );
        accounts.apply_sysusers(
            "# comment\nu! systemd-network 998:998 \"Network Management\" / -\ng input -\nm www-data input\nu root 0 - /root\n",
        );
        accounts.add_scripted();
        accounts.add_scripted();
        let mut tree = Tree::default();
        accounts.write(&mut tree);
        let passwd = text(&tree, "etc/passwd");
        assert!(passwd.starts_with("root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:"), "{passwd}");
        assert_eq!(passwd.matches("sshd:x:").count(), 1);
        assert!(text(&tree, "etc/group").contains("systemd-network:x:998:\ninput:x:997:www-data\n"));
        assert!(text(&tree, "etc/shadow").starts_with("root::20000:"));
        assert_eq!(tree.get("etc/shadow").map(|node| (node.mode, node.gid)), Some((0o640, 42)));
        assert!(accounts.need_user("nobody-here").is_err());
    }

    #[test]
    fn an_id_that_is_taken_is_not_given_twice() {
        let mut accounts = Accounts::default();
        accounts.apply_sysusers("u a 500\nu b 500\ng c 500\n");
        let (a, b) = (accounts.need_user("a").expect("added"), accounts.need_user("b").expect("added"));
        assert_eq!(a, (500, 500));
        assert_ne!(b.0, 500);
        assert_ne!(accounts.gid("c"), Some(500));
    }
}
