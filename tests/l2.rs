//! The second tier: what one instance has stored, all of them have.

mod cluster;
mod coherence;
mod faults;
mod hottest;
mod leases;
mod reached;
mod tier;
