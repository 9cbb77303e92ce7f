use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Chosen by measuring: after minutes of storing and evicting bodies of all sizes it is the one that gives memory back.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Pages that are free go back to the system soon: what a cache has evicted should not count twice. Large ones are given when
/// [`forebay::heap`] says so. A thread keeps at hand what some dozens of exchanges take at once, of which each has one piece of a size.
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8] = b"thp:always,dirty_decay_ms:100,muzzy_decay_ms:0,tcache_nslots_small_min:64\0";

fn main() -> ExitCode {
    forebay::heap::begin();
    forebay::cli::run()
}
