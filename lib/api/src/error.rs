//! What goes wrong, as it is told.

use serde::{Deserialize, Serialize};

/// An error as it is sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What happened, and why.
    pub error: String,
    /// Which kind of error it is, for programs; missing where the status says all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    /// What to do, in terms of the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// There is no such VM.
    UnknownVm,
    /// There is a VM of that name.
    NameTaken,
    /// Another VM uses the disk.
    DiskInUse,
    /// What is asked for cannot be made.
    Invalid,
    /// The VM is in a state in which this cannot be done.
    WrongState,
    /// The VM is on a journey.
    Travelling,
    /// The VM runs on another host.
    Away,
    /// It cannot be done at present; the hint says what can.
    NotNow,
    /// The VM's controller refused.
    Refused,
    /// The daemon is going down.
    Ending,
    /// There is no room for the VM's memory.
    NoMemory,
    /// The host failed.
    Failed,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_the_documentation_has_them_and_a_newer_one_is_no_fault() {
        let written = serde_json::to_value([ErrorCode::UnknownVm, ErrorCode::DiskInUse, ErrorCode::NotNow]);
        assert_eq!(written.expect("codes"), serde_json::json!(["unknown-vm", "disk-in-use", "not-now"]));
        let body: ErrorBody =
            serde_json::from_str(r#"{"error": "no", "code": "of-tomorrow", "more": 1}"#).expect("a body");
        assert_eq!((body.code, body.hint), (Some(ErrorCode::Other), None));
        let body: ErrorBody = serde_json::from_str(r#"{"error": "no"}"#).expect("a body");
        assert_eq!(body.code, None);
    }
}
