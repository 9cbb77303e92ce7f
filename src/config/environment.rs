//! `${NAME}` and `${NAME:-default}` in scalars.

use std::collections::BTreeMap;

use super::diagnostic::Complaint;

/// A substituted scalar may not be longer (bytes): an environment is about as large at most, and a file could name it
/// often.
const MAX_EXPANDED: usize = 128 * 1024;

/// Where `${NAME}` comes from.
#[derive(Debug, Clone)]
pub enum Environment {
    /// That of this process.
    Process,
    /// These names and values.
    Fixed(BTreeMap<String, String>),
}

impl Environment {
    /// An environment of its own, for tests and `check` without one.
    pub fn fixed<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let variables = variables.into_iter();
        Self::Fixed(
            variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// # Errors
    /// The variable is set to something that is not UTF-8.
    fn lookup(&self, name: &str) -> Result<Option<String>, Complaint> {
        match self {
            Self::Fixed(variables) => Ok(variables.get(name).cloned()),
            Self::Process => match std::env::var(name) {
                Ok(value) => Ok(Some(value)),
                Err(std::env::VarError::NotPresent) => Ok(None),
                Err(std::env::VarError::NotUnicode(_)) => Err(Complaint::new(
                    format!("the environment variable {name} is not UTF-8"),
                    "set it to text",
                )),
            },
        }
    }

    /// Puts values in the place of `${NAME}` and `${NAME:-default}`; `$${` becomes `${`. `None`: there is nothing to
    /// replace.
    ///
    /// # Errors
    /// A variable is not set and has no default, or a `${` is not closed or holds no name.
    pub fn substitute(&self, text: &str) -> Result<Option<Substituted>, Complaint> {
        if !text.contains("${") {
            return Ok(None);
        }
        let mut result = String::with_capacity(text.len());
        let mut variables = false;
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let (before, reference) = rest.split_at(start);
            if let Some(literal) = before.strip_suffix('$') {
                result.push_str(literal);
                result.push_str("${");
                rest = &reference[2..];
                continue;
            }
            result.push_str(before);
            let Some(end) = reference.find('}') else {
                return Err(Complaint::new(
                    "has a `${` that is not closed",
                    "write ${NAME}, or $${ for a literal",
                ));
            };
            result.push_str(&self.value(&reference[2..end])?);
            variables = true;
            if result.len() > MAX_EXPANDED {
                return Err(Complaint::new(
                    format!("is longer than {MAX_EXPANDED} bytes after substitution"),
                    "set the variable to less",
                ));
            }
            rest = &reference[end + 1..];
        }
        result.push_str(rest);
        Ok(Some(Substituted {
            text: result,
            variables,
        }))
    }

    fn value(&self, reference: &str) -> Result<String, Complaint> {
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        if !is_name(name) {
            return Err(Complaint::new(
                "has a `${` without the name of an environment variable",
                "write ${NAME} or ${NAME:-default}, or $${ for a literal",
            ));
        }
        match (self.lookup(name)?, default) {
            // As in the shell, `:-` also stands in for a variable that is set to nothing.
            (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
            (Some(value), _) => Ok(value),
            (None, Some(default)) => Ok(default.to_owned()),
            (None, None) => Err(Complaint::new(
                format!("the environment variable {name} is not set"),
                format!("set it, or give a default: ${{{name}:-default}}"),
            )),
        }
    }
}

/// The outcome of [`Environment::substitute`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Substituted {
    pub text: String,
    /// Whether anything came from a variable or its default, rather than `$${` alone.
    pub variables: bool,
}

/// `[A-Za-z_][A-Za-z0-9_]*`, as in POSIX.1-2017 §3.235.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    matches!(bytes.next(), Some(b'A'..=b'Z' | b'a'..=b'z' | b'_'))
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced() {
        let environment = Environment::fixed([("HOST", "app"), ("PORT", "3000"), ("EMPTY", ""), ("ODD", "${HOST}")]);
        for (text, expected) in [
            ("${HOST}:${PORT}", "app:3000"),
            ("${NONE:-a:-b}", "a:-b"),
            ("${NONE:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}", "x"),
            ("${HOST:-x}", "app"),
            ("$${HOST} $${", "${HOST} ${"),
            ("$5 ${HOST}$", "$5 app$"),
            ("${ODD}", "${HOST}"),
        ] {
            let result = environment.substitute(text).unwrap().unwrap();
            assert_eq!(result.text, expected, "{text}");
        }
        assert_eq!(environment.substitute("$5 {x}").unwrap(), None);
        assert!(!environment.substitute("$${HOST}").unwrap().unwrap().variables);
    }

    #[test]
    fn what_cannot_be_replaced_is_an_error() {
        let environment = Environment::fixed([]);
        for (text, expected) in [
            ("${NONE}", "the environment variable NONE is not set"),
            ("x${NONE", "has a `${` that is not closed"),
            ("${}", "has a `${` without the name of an environment variable"),
            ("${a b}", "has a `${` without the name of an environment variable"),
            ("${1A:-x}", "has a `${` without the name of an environment variable"),
        ] {
            assert_eq!(environment.substitute(text).unwrap_err().what, expected, "{text}");
        }
    }

    #[test]
    fn expansion_is_bounded() {
        let environment = Environment::fixed([("BIG", &*"x".repeat(1024))]);
        let error = environment.substitute(&"${BIG}".repeat(1000)).unwrap_err();
        assert_eq!(error.what, "is longer than 131072 bytes after substitution");
    }
}
