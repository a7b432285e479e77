//! Errors as people read them.

use std::error::Error;

/// An error with its causes behind colons. A cause that is in the text already is left out: some errors print the one that
/// they were made from, some do not, and nobody wants to read it twice.
#[must_use]
pub fn whole(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug)]
    struct Step {
        text: &'static str,
        shown: bool,
        cause: Box<dyn Error + 'static>,
    }

    impl std::fmt::Display for Step {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            if self.shown { write!(f, "{}: {}", self.text, self.cause) } else { f.write_str(self.text) }
        }
    }

    impl Error for Step {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&*self.cause)
        }
    }

    fn step(text: &'static str, shown: bool, cause: impl Error + 'static) -> Step {
        Step { text, shown, cause: Box::new(cause) }
    }

    #[test]
    fn a_cause_is_said_once() {
        let full = || io::Error::from_raw_os_error(28);
        let once = full().to_string();
        for shown in [true, false] {
            for inner in [true, false] {
                let error = step("it cannot be made", shown, step("disk a.img", inner, full()));
                assert_eq!(
                    whole(&error),
                    format!("it cannot be made: disk a.img: {once}"),
                    "{shown} {inner}"
                );
            }
        }
        assert_eq!(whole(&full()), once);
    }
}
