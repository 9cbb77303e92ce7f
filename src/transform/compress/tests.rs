use super::*;
use crate::message::fields;

#[test]
fn fields_tell_of_the_body_that_is_sent() {
    let mut recoded = fields(&[
        ("ETag", "\"a\""),
        ("Content-Type", "text/html"),
        ("Content-MD5", "x"),
        ("Digest", "x"),
        ("Content-Digest", "x"),
        ("Repr-Digest", "x"),
        ("Accept-Ranges", "bytes"),
        ("Vary", "Origin"),
    ]);
    recode_fields(&mut recoded, Recoding::To(Coding::Zstd));
    let expected = fields(&[
        ("Content-Type", "text/html"),
        ("Vary", "Origin"),
        ("Content-Encoding", "zstd"),
        ("ETag", "\"a;fb-zstd\""),
        ("Vary", "Accept-Encoding"),
    ]);
    assert_eq!(recoded, expected);

    let mut undone = fields(&[
        ("Content-Encoding", "gzip"),
        ("ETag", "W/\"a\""),
        ("Vary", "accept-encoding"),
    ]);
    recode_fields(&mut undone, Recoding::Undone);
    assert_eq!(undone, fields(&[("ETag", "W/\"a\""), ("Vary", "accept-encoding")]));
}

#[test]
fn vary_is_said_once() {
    for (vary, lines) in [("*", 1), ("Accept, ACCEPT-ENCODING", 1), ("Accept", 2)] {
        let mut fields = fields(&[("Vary", vary)]);
        vary_by_coding(&mut fields);
        assert_eq!(fields.get_all("vary").count(), lines, "{vary}");
    }
}
