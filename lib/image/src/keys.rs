//! ssh keys: one pair that both guests accept for root, and the guests' host key. Made once per cache.

use super::error::{ImageError, IoContext};
use super::tools::{self, SSH_KEYGEN};
use std::path::{Path, PathBuf};

/// The keys that go into the images.
#[derive(Debug, Clone)]
pub struct Keys {
    /// File of the user's private key.
    pub user_private: PathBuf,
    /// The user's public key, a line for `authorized_keys`.
    pub user_public: String,
    /// Host key, private part, in OpenSSH's form.
    pub host_private: String,
    /// Host key, public part.
    pub host_public: String,
}

/// The keys in `dir`, made if they aren't there.
pub fn keys(dir: &Path) -> Result<Keys, ImageError> {
    std::fs::create_dir_all(dir).at("making directory", dir)?;
    let user = pair(dir, "id_ed25519", "quasar guest access")?;
    let host = pair(dir, "ssh_host_ed25519_key", "quasar guest")?;
    let read = |path: &Path| std::fs::read_to_string(path).at("reading", path);
    Ok(Keys {
        user_public: read(&user.with_extension("pub"))?,
        host_private: read(&host)?,
        host_public: read(&host.with_extension("pub"))?,
        user_private: user,
    })
}

fn pair(dir: &Path, name: &str, comment: &str) -> Result<PathBuf, ImageError> {
    let path = dir.join(name);
    if !path.is_file() {
        // An interrupted run leaves nothing under the final names: the public part is moved first.
        let draft = dir.join(format!(".{name}.draft"));
        let (draft_public, public) =
            (dir.join(format!(".{name}.draft.pub")), dir.join(format!("{name}.pub")));
        std::fs::remove_file(&draft).ok();
        tools::run(
            SSH_KEYGEN.command()?.args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]).arg(&draft),
        )?;
        std::fs::rename(&draft_public, &public).at("moving", draft_public)?;
        std::fs::rename(&draft, &path).at("moving", draft)?;
    }
    Ok(path)
}

/// A private ed25519 key in dropbear's form, from OpenSSH's (PROTOCOL.key of OpenSSH; not encrypted).
pub fn to_dropbear(openssh: &str) -> Result<Vec<u8>, ImageError> {
    convert(openssh).ok_or_else(|| ImageError::Malformed {
        name: "host key".into(),
        problem: "not an unencrypted ed25519 key in OpenSSH's form".into(),
    })
}

fn convert(openssh: &str) -> Option<Vec<u8>> {
    let body: String = openssh.lines().filter(|line| !line.starts_with("-----")).collect();
    let bytes = base64(&body)?;
    let mut rest = bytes.strip_prefix(b"openssh-key-v1\0")?;
    let cipher = string(&mut rest)?;
    let (_kdf, _kdf_options) = (string(&mut rest)?, string(&mut rest)?);
    let count = u32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
    let _public = string(&mut rest)?;
    let mut private = string(&mut rest)?;
    if cipher != b"none" || count != 1 {
        return None;
    }
    take(&mut private, 8)?;
    let kind = string(&mut private)?;
    let _public = string(&mut private)?;
    let pair = string(&mut private)?;
    if kind != b"ssh-ed25519" || pair.len() != 64 {
        return None;
    }
    let mut dropbear = Vec::new();
    for part in [kind, pair] {
        dropbear.extend(u32::try_from(part.len()).ok()?.to_be_bytes());
        dropbear.extend(part);
    }
    Some(dropbear)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

/// A string of the ssh protocol: a big-endian length and so many bytes.
fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(take(rest, 4)?.try_into().ok()?);
    take(rest, usize::try_from(length).ok()?)
}

/// Decodes base64 (RFC 4648, section 4) without white space.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0_u32);
    for symbol in text.trim_end_matches('=').bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.extend((bits >> count).to_be_bytes().last());
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_every_length() {
        assert_eq!(base64("").as_deref(), Some(&b""[..]));
        assert_eq!(base64("Zg==").as_deref(), Some(&b"f"[..]));
        assert_eq!(base64("Zm8=").as_deref(), Some(&b"fo"[..]));
        assert_eq!(base64("Zm9v").as_deref(), Some(&b"foo"[..]));
        assert_eq!(base64("Zm9vYmFy").as_deref(), Some(&b"foobar"[..]));
        assert_eq!(base64("-"), None);
    }

    #[test]
    fn a_made_key_becomes_dropbears() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let made = keys(dir.path()).expect("ssh-keygen works");
        let again = keys(dir.path()).expect("they are there");
        assert_eq!(made.user_public, again.user_public);
        let dropbear = to_dropbear(&made.host_private).expect("well formed");
        assert_eq!(dropbear.len(), 4 + 11 + 4 + 64);
        // The public half of the pair is what the public key's line ends in.
        let line = base64(made.host_public.split(' ').nth(1).expect("three words")).expect("base64");
        assert_eq!(dropbear[dropbear.len() - 32..], line[line.len() - 32..]);
        assert!(to_dropbear(&made.host_public).is_err());
    }
}
