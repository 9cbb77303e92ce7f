//! Texts that are mostly short, and then need no allocation of their own.

use arrayvec::ArrayString;

/// A text that never changes; one of up to `SHORT` bytes is held in place.
#[derive(Clone)]
pub(super) enum Text<const SHORT: usize> {
    Short(ArrayString<SHORT>),
    Long(Box<str>),
}

impl<const SHORT: usize> Text<SHORT> {
    #[inline]
    pub(super) fn new(text: &str) -> Self {
        match ArrayString::from(text) {
            Ok(short) => Self::Short(short),
            Err(_) => Self::Long(text.into()),
        }
    }

    #[inline]
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Short(text) => text,
            Self::Long(text) => text,
        }
    }
}

impl<const SHORT: usize> Default for Text<SHORT> {
    fn default() -> Self {
        Self::Short(ArrayString::new())
    }
}

/// What a text of its own type has in common with `str`.
macro_rules! behaves_as_text {
    ($name:ty) => {
        impl std::ops::Deref for $name {
            type Target = str;

            #[inline]
            fn deref(&self) -> &str {
                self.as_str()
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::from(text.as_str())
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.as_str() == other.as_str()
            }
        }

        impl Eq for $name {}

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                self.as_bytes()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}

pub(super) use behaves_as_text;

/// The bytes as text, where each of them has been looked up in a table that knows only ASCII.
#[allow(unsafe_code)]
#[inline]
pub(super) fn known_ascii(bytes: &[u8]) -> &str {
    debug_assert!(bytes.is_ascii());
    // SAFETY: ASCII is UTF-8. Checking it again costs more than finding it out has.
    unsafe { std::str::from_utf8_unchecked(bytes) }
}
