//! What a running process cannot take over from a new configuration.

use super::Config;

impl Config {
    /// The keys that differ in `new` and are only read at start. Empty: `new` can replace this one while it runs.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let mut keys = Vec::new();
        let addresses = |config: &Self| -> Vec<_> {
            config
                .listeners
                .iter()
                .map(|listener| listener.address.clone())
                .collect()
        };
        if addresses(self) != addresses(new) {
            keys.push("listeners.address");
        }
        if self.metrics != new.metrics {
            keys.push("metrics.listen");
        }
        let admin = |config: &Self| config.admin.as_ref().map(|admin| admin.listen);
        if admin(self) != admin(new) {
            keys.push("admin.listen");
        }
        if self.cache.memory.size != new.cache.memory.size {
            keys.push("cache.memory.size");
        }
        if self.cache.memory.eviction != new.cache.memory.eviction {
            keys.push("cache.memory.eviction");
        }
        if self.cache.memory.dictionaries != new.cache.memory.dictionaries {
            keys.push("cache.memory.dictionaries");
        }
        if self.rate_limits.store != new.rate_limits.store {
            keys.push("rate_limits.store");
        }
        if self.rate_limits.max_keys != new.rate_limits.max_keys {
            keys.push("rate_limits.max_keys");
        }
        if self.cache.redis != new.cache.redis {
            keys.push("cache.redis");
        }
        if self.server.threads != new.server.threads {
            keys.push("server.threads");
        }
        keys
    }
}
