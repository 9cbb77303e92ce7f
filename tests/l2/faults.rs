//! Whatever happens to Redis, clients see nothing of it.
