//! Which content coding a response gets (RFC 9110 §12.5.3).

use crate::message::{Fields, is_token_byte};
use crate::rfc9111::vary::{FULL_WEIGHT, weight};

/// A content coding that is made and undone here (RFC 9110 §8.4.1, RFC 7932, RFC 8878).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    Zstd,
    Br,
    Gzip,
}

impl Coding {
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Br, Self::Gzip];

    /// As it stands in fields, and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }

    /// Codings have no case (RFC 9110 §8.4.1), and gzip has an old name (§8.4.1.3).
    pub fn parse(token: &[u8]) -> Option<Self> {
        let is = |name: &str| token.eq_ignore_ascii_case(name.as_bytes());
        if is("x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL.into_iter().find(|coding| is(coding.as_str()))
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// A content coding that takes a dictionary (RFC 9842 §4, §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DictionaryCoding {
    Dcz,
    Dcb,
}

impl DictionaryCoding {
    pub const ALL: [Self; 2] = [Self::Dcz, Self::Dcb];

    /// As it stands in fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dcz => "dcz",
            Self::Dcb => "dcb",
        }
    }

    /// What it would be without a dictionary.
    pub fn base(self) -> Coding {
        match self {
            Self::Dcz => Coding::Zstd,
            Self::Dcb => Coding::Br,
        }
    }

    /// The one that is made instead of this coding.
    fn of(coding: Coding) -> Option<Self> {
        Self::ALL.into_iter().find(|with| with.base() == coding)
    }

    /// The best of those that are `offered` in the form without a dictionary, if the client likes it no less than any of those, and than
    /// no coding at all. It has to be named: nobody who says `*` means something that needs a dictionary.
    pub fn choose(request: &Fields, offered: &[Coding]) -> Option<Self> {
        let accepted = Accepted::of(request);
        let plain = match (accepted.choose(offered), accepted.identity) {
            (Some(coding), _) => accepted.weight(coding),
            (None, Identity::Weighs(weight)) => weight,
            (None, Identity::Unsaid | Identity::Excluded) => 1,
        };
        let mut best: Option<(Self, u16)> = None;
        for with in offered.iter().filter_map(|coding| Self::of(*coding)) {
            let weight = named_weight(request, with.as_str())?;
            if weight >= plain && best.is_none_or(|(_, best)| weight > best) {
                best = Some((with, weight));
            }
        }
        best.map(|(with, _)| with)
    }
}

/// The weight of a coding that is named; 0: it is not, or not acceptable. `None`: the field cannot be read.
fn named_weight(request: &Fields, name: &str) -> Option<u16> {
    let mut least = None;
    for member in request
        .get_all("accept-encoding")
        .flat_map(|line| line.split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
    {
        let (token, weight) = read(member)?;
        if token.eq_ignore_ascii_case(name.as_bytes()) {
            least = Some(least.map_or(weight, |before: u16| before.min(weight)));
        }
    }
    Some(least.unwrap_or_default())
}

/// What a client's `Accept-Encoding` says about the codings that are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// By [`Coding::index`], in thousandths; 0: not acceptable.
    weights: [u16; Coding::ALL.len()],
    identity: Identity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    /// Nothing is said of it: acceptable, behind whatever is asked for.
    Unsaid,
    /// In thousandths.
    Weighs(u16),
    /// `identity;q=0`, or `*;q=0` without it.
    Excluded,
}

impl Accepted {
    /// No coding at all: what a client gets that does not ask for one, or in a way that cannot be read.
    pub const NONE: Self = Self {
        weights: [0; Coding::ALL.len()],
        identity: Identity::Unsaid,
    };

    /// Reads all lines. Allocates nothing, because every hit on a route that compresses asks.
    pub fn of(request: &Fields) -> Self {
        // `None`: not named; then `*` speaks for it.
        let mut named = [None; Coding::ALL.len()];
        let mut identity = None;
        let mut others = None;
        for member in request
            .get_all("accept-encoding")
            .flat_map(|line| line.split(|b| *b == b','))
        {
            let member = member.trim_ascii();
            if member.is_empty() {
                continue;
            }
            let Some((token, weight)) = read(member) else {
                return Self::NONE;
            };
            let place = match token {
                b"*" => &mut others,
                _ if token.eq_ignore_ascii_case(b"identity") => &mut identity,
                _ => match Coding::parse(token).and_then(|coding| named.get_mut(coding.index())) {
                    Some(place) => place,
                    None => continue,
                },
            };
            // Who says it twice means at least the lower of the two.
            *place = Some(place.map_or(weight, |before: u16| before.min(weight)));
        }
        Self {
            weights: named.map(|weight| weight.or(others).unwrap_or_default()),
            identity: match (identity, others) {
                (Some(0), _) | (None, Some(0)) => Identity::Excluded,
                (Some(weight), _) => Identity::Weighs(weight),
                (None, _) => Identity::Unsaid,
            },
        }
    }

    pub fn accepts(self, coding: Coding) -> bool {
        self.weight(coding) > 0
    }

    /// Whether a response without a coding will do. Where it will not, and neither will another, it is sent all the same: a 406
    /// helps nobody (RFC 9110 §12.5.3 asks for no more).
    pub fn accepts_identity(self) -> bool {
        self.identity != Identity::Excluded
    }

    /// The best of `offered`, which stands in the order of our own preference. `None`: the response as it is.
    pub fn choose(self, offered: &[Coding]) -> Option<Coding> {
        let mut best: Option<Coding> = None;
        for coding in offered {
            if self.weight(*coding) > best.map_or(0, |best| self.weight(best)) {
                best = Some(*coding);
            }
        }
        match (best, self.identity) {
            (Some(best), Identity::Weighs(identity)) if identity > self.weight(best) => None,
            (best, _) => best,
        }
    }

    fn weight(self, coding: Coding) -> u16 {
        self.weights.get(coding.index()).copied().unwrap_or_default()
    }
}

/// `name[;q=weight]`; `None`: it is something else.
fn read(member: &[u8]) -> Option<(&[u8], u16)> {
    let (token, weight) = match member.iter().position(|b| *b == b';') {
        Some(at) => {
            let (token, parameter) = member.split_at(at);
            let parameter = parameter.get(1..).unwrap_or_default();
            (token.trim_ascii_end(), weight(parameter.trim_ascii())?)
        }
        None => (member, FULL_WEIGHT),
    };
    let is_token = !token.is_empty() && token.iter().all(|b| is_token_byte(*b));
    is_token.then_some((token, weight))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(lines: &[&str]) -> Fields {
        let mut fields = Fields::new();
        for line in lines {
            fields.push("Accept-Encoding", line);
        }
        fields
    }

    #[test]
    fn the_best_is_chosen_by_weight_and_then_by_our_order() {
        use Coding::{Br, Gzip, Zstd};
        let table: [(&[&str], Option<Coding>); 38] = [
            (&[], None),
            (&[""], None),
            (&["identity"], None),
            (&["gzip"], Some(Gzip)),
            (&["GZip"], Some(Gzip)),
            (&["x-gzip"], Some(Gzip)),
            (&["gzip, deflate, br, zstd"], Some(Zstd)),
            (&["gzip, deflate, br"], Some(Br)),
            (&["gzip", "br"], Some(Br)),
            (&["gzip;q=1, br;q=0.9, zstd;q=0.1"], Some(Gzip)),
            (&["gzip;q=0.5,br;q=0.500,zstd;q=0.499"], Some(Br)),
            (&["br ; Q=0.8 , gzip ; q=0.801"], Some(Gzip)),
            (&["gzip;q=0"], None),
            (&["gzip;q=0.000, br"], Some(Br)),
            (&["gzip;q=0, gzip"], None),
            (&["*"], Some(Zstd)),
            (&["*;q=0"], None),
            (&["*;q=0, br"], Some(Br)),
            (&["zstd;q=0, *"], Some(Br)),
            (&["zstd;q=0, *;q=0.5, gzip"], Some(Gzip)),
            (&["identity;q=0"], None),
            (&["identity;q=0, gzip;q=0.1"], Some(Gzip)),
            (&["identity, gzip"], Some(Gzip)),
            (&["identity, gzip;q=0.9"], None),
            (&["identity;q=0.5, gzip;q=0.4, br;q=0.6"], Some(Br)),
            (&["compress, deflate, snappy"], None),
            (&["snappy, gzip"], Some(Gzip)),
            (&[", ,gzip,, ,"], Some(Gzip)),
            // What cannot be read means nothing.
            (&["gzip;level=9"], None),
            (&["gzip;q=2"], None),
            (&["gzip;q=0.1234"], None),
            (&["gzip;q="], None),
            (&["gzip;"], None),
            (&["gzip br"], None),
            (&["gzip", "b r"], None),
            (&[";q=1"], None),
            (&["gzip/1.0"], None),
            (&["\"gzip\""], None),
        ];
        for (lines, expected) in table {
            let accepted = Accepted::of(&request(lines));
            assert_eq!(accepted.choose(&Coding::ALL), expected, "{lines:?}");
        }
    }

    #[test]
    fn only_what_is_offered_is_chosen() {
        let accepted = Accepted::of(&request(&["gzip, br;q=0.5, zstd;q=0.1"]));
        assert_eq!(accepted.choose(&[Coding::Zstd, Coding::Br]), Some(Coding::Br));
        assert_eq!(accepted.choose(&[]), None);
        let equal = Accepted::of(&request(&["gzip, br"]));
        assert_eq!(equal.choose(&[Coding::Gzip, Coding::Br]), Some(Coding::Gzip));
        // With nothing else to give, what is there is given.
        assert_eq!(
            Accepted::of(&request(&["identity;q=0, gzip"])).choose(&[Coding::Br]),
            None
        );
    }

    #[test]
    fn identity_is_acceptable_unless_it_is_excluded() {
        for (line, expected) in [
            ("", true),
            ("gzip", true),
            ("*", true),
            ("identity;q=0.001, *;q=0", true),
            ("identity;q=0", false),
            ("*;q=0", false),
            ("gzip, *;q=0.0", false),
            ("identity;q=0;q=1", true),
        ] {
            assert_eq!(Accepted::of(&request(&[line])).accepts_identity(), expected, "{line}");
        }
    }

    #[test]
    fn codings_with_a_dictionary_have_to_be_named() {
        use DictionaryCoding::{Dcb, Dcz};
        for (lines, expected) in [
            (&["gzip, deflate, br, zstd, dcb, dcz"][..], Some(Dcz)),
            (&["gzip", "dcb"], Some(Dcb)),
            (&["dcz"], Some(Dcz)),
            (&["DCZ;q=0.5"], Some(Dcz)),
            (&["dcz;q=0.5, dcb"], Some(Dcb)),
            (&["dcz;q=0.5, br"], None),
            (&["dcz;q=0.5, identity"], None),
            (&["dcz;q=0.5, identity;q=0.5"], Some(Dcz)),
            (&["dcz;q=0.5, identity;q=0"], Some(Dcz)),
            (&["dcz;q=0, dcb;q=0"], None),
            (&["dcz, dcz;q=0"], None),
            (&["*"], None),
            (&["br, zstd"], None),
            (&[], None),
            (&["dcz;x=1"], None),
        ] {
            assert_eq!(
                DictionaryCoding::choose(&request(lines), &Coding::ALL),
                expected,
                "{lines:?}"
            );
        }
        let both = request(&["dcb, dcz"]);
        assert_eq!(DictionaryCoding::choose(&both, &[Coding::Br, Coding::Zstd]), Some(Dcb));
        assert_eq!(DictionaryCoding::choose(&both, &[Coding::Gzip]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(lines in proptest::collection::vec("[ -~]{0,40}", 0..4)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let accepted = Accepted::of(&request(&lines));
            if let Some(coding) = accepted.choose(&Coding::ALL) {
                prop_assert!(accepted.accepts(coding));
            }
        }

        #[test]
        fn the_order_of_lines_and_members_is_of_no_account(
            members in proptest::collection::vec(
                ("(gzip|br|zstd|identity|\\*|deflate)", 0..=1000u16), 0..6),
            seed in any::<u64>(),
        ) {
            let text = |(name, weight): &(String, u16)| match weight {
                1000 => format!("{name};q=1"),
                weight => format!("{name};q=0.{weight:03}"),
            };
            let mut members: Vec<String> = members.iter().map(text).collect();
            let before = Accepted::of(&request(&[&members.join(", ")]));
            fastrand::Rng::with_seed(seed).shuffle(&mut members);
            let lines: Vec<&str> = members.iter().map(String::as_str).collect();
            prop_assert_eq!(Accepted::of(&request(&lines)), before);
        }
    }
}
