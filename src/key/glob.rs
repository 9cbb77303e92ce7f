//! Patterns for names.

/// A name in which `*` stands for any characters, also none. Compared with case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes time in proportion to the product of both lengths at worst, whatever the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let Some((front, rest)) = self.0.split_once('*') else {
            return self.0 == name;
        };
        let Some(mut name) = name.strip_prefix(front) else {
            return false;
        };
        let (middle, back) = rest.rsplit_once('*').unwrap_or(("", rest));
        // The first place is as good as any other for what stands between two stars.
        for piece in middle.split('*') {
            match name.find(piece) {
                Some(at) => name = name.get(at + piece.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        name.ends_with(back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let cases = [
            ("gclid", "gclid", true),
            ("gclid", "gclid2", false),
            ("gclid", "Gclid", false),
            ("utm_*", "utm_source", true),
            ("utm_*", "utm_", true),
            ("utm_*", "xutm_", false),
            ("*", "", true),
            ("*", "x", true),
            ("**", "x", true),
            ("*id", "fbclid", true),
            ("*id", "idx", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("a*bc*bc", "abc", false),
            ("", "", true),
            ("", "x", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(Glob::new(pattern).matches(name), expected, "{pattern} {name}");
        }
    }
}
