//! Any bytes as a value of the second tier: nothing panics, and no more is allocated than is there or allowed.
#![no_main]

use std::time::Duration;

use bytes::Bytes;
use forebay::cache::codec::{Value, decode};
use forebay::rfc9111::date::Timestamp;
use libfuzzer_sys::fuzz_target;
use xxhash_rust::xxh3::xxh3_128;

/// Bytes of the largest body.
const MAX_BODY: u64 = 1 << 16;

fuzz_target!(|data: &[u8]| {
    // As they are, and with the magic and checksum that let them further in.
    read(Bytes::copy_from_slice(data));
    let mut sealed = b"FBY\x01".to_vec();
    sealed.extend_from_slice(&xxh3_128(data).to_le_bytes());
    sealed.extend_from_slice(data);
    read(sealed.into());
});

fn read(bytes: Bytes) {
    if let Ok(Value::Response(decoded)) = decode(&bytes, b"", MAX_BODY)
        && let Ok(stored) = decoded.into_stored(Duration::ZERO, Timestamp::default())
    {
        assert!(stored.body.len() as u64 <= MAX_BODY);
        stored.fields.unpack();
    }
}
