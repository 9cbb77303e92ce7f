//! One configuration in force, with what was made of it. A reload puts a new one in its place; exchanges that are under way
//! keep theirs to the end.

mod rules;

use std::sync::Arc;

use crate::cache::memory::RouteShare;
use crate::clock::Clock;
use crate::config::{self, Config, ListenAddress};
use crate::edge::tls::TlsAcceptor;
use crate::key::QueryOptions;
use crate::limit::Limiter;
use crate::limit::gates::Gates;
use crate::limit::rate::{Limit, RouteLimits};
use crate::log::access::AccessLog;
use crate::metrics::{Metrics, NO_ROUTE, RouteMetrics};
use crate::route::{Condition, Router};
use crate::tls::{Alpn, TlsConfigError};
use crate::upstream::Upstream;

pub use crate::config::Collapse;
pub use rules::CacheRules;

#[derive(Debug)]
pub struct Generation {
    pub config: Config,
    pub router: Router,
    /// As many as the configuration has, in its order.
    pub routes: Vec<RouteInForce>,
    pub upstreams: Vec<Arc<Upstream>>,
    /// What successful unsafe requests purge beside their URI, and when.
    pub invalidations: Vec<(Condition, config::Invalidate)>,
    /// As many as the configuration has listeners. `None`: plain HTTP.
    pub acceptors: Vec<Option<Arc<TlsAcceptor>>>,
    pub limiter: Arc<Limiter>,
    pub gates: Gates,
    /// Counts requests that no route takes.
    pub no_route: Arc<RouteMetrics>,
    /// Where requests are logged. `None`: it is not in force.
    pub access_log: Option<Arc<AccessLog>>,
    /// Whether any route does. Tags of recoded responses then have to be understood on all of them: what a client got from one, it may
    /// send back through another.
    pub compresses: bool,
    /// Whether any route takes PURGE requests: then none of them goes to an upstream.
    pub purges: bool,
    labels: Vec<Arc<str>>,
    /// Names of cookies that are ours, and nobody else's to see.
    pub sticky_cookies: Vec<String>,
}

/// What requests of one route need at hand.
#[derive(Debug)]
pub struct RouteInForce {
    pub name: Arc<str>,
    pub upstream: Arc<Upstream>,
    pub metrics: Arc<RouteMetrics>,
    /// `None`: nothing of this route is looked up or stored.
    pub cache: Option<CacheRules>,
    /// `None`: there are none.
    pub limits: Option<Arc<RouteLimits>>,
}

impl Generation {
    /// What L1 is to know of the routes that cache.
    pub fn shares(&self) -> impl Iterator<Item = RouteShare> {
        let routes = self.config.routes.iter().zip(&self.routes);
        routes.filter_map(|(route, in_force)| {
            let rules = in_force.cache.as_ref()?;
            Some(RouteShare {
                route: route.name.clone(),
                max_size: rules.max_size,
                windows: rules.reuse.windows,
                keep: rules.keep,
            })
        })
    }

    /// Reads all certificates. Upstreams and listeners that `before` has in the same form are taken over with their connections and sessions.
    ///
    /// # Errors
    /// Everything that is wrong with the files that the configuration names.
    pub fn new(
        config: Config,
        metrics: &Metrics,
        clock: &Clock,
        before: Option<&Self>,
    ) -> Result<Self, Vec<TlsConfigError>> {
        let mut errors = Vec::new();
        // What clients have used is not forgotten because something else has changed.
        let limiter = match before {
            Some(before) => before.limiter.clone(),
            None => Arc::new(Limiter::new(config.rate_limits.max_keys)),
        };
        let mut upstreams = Vec::with_capacity(config.upstreams.len());
        for upstream in &config.upstreams {
            let kept = before.and_then(|before| before.upstreams.iter().find(|kept| kept.config() == upstream));
            match kept {
                Some(kept) => upstreams.push(kept.clone()),
                None => match Upstream::new(upstream, metrics, clock, changed(upstream, before)) {
                    Ok(upstream) => upstreams.push(Arc::new(upstream)),
                    Err(error) => errors.push(error),
                },
            }
        }
        let mut acceptors = Vec::with_capacity(config.listeners.len());
        for (index, listener) in config.listeners.iter().enumerate() {
            let Some(tls) = &listener.tls else {
                acceptors.push(None);
                continue;
            };
            // The keys of session tickets live in the acceptor.
            let unchanged = before.filter(|before| {
                let then = before.config.listeners.get(index);
                then.is_some_and(|then| (&then.tls, then.http2) == (&listener.tls, listener.http2))
            });
            if let Some(Some(acceptor)) = unchanged.and_then(|before| before.acceptors.get(index)) {
                acceptors.push(Some(acceptor.clone()));
                continue;
            }
            let highest = match listener.http2 {
                true => Alpn::Http2,
                false => Alpn::Http1,
            };
            match TlsAcceptor::new(tls, highest) {
                Ok(acceptor) => acceptors.push(Some(Arc::new(acceptor))),
                Err(all) => errors.extend(all),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let limits: Vec<_> = config
            .rate_limits
            .limits
            .iter()
            .map(|limit| {
                Arc::new(Limit::new(
                    limit,
                    metrics.limit(&limit.name),
                    limiter.refused(&limit.name),
                ))
            })
            .collect();
        let mut routes = Vec::with_capacity(config.routes.len());
        for route in &config.routes {
            if let Some(upstream) = upstreams.get(route.upstream) {
                routes.push(RouteInForce {
                    name: route.name.clone(),
                    upstream: upstream.clone(),
                    metrics: metrics.route(&route.name),
                    cache: CacheRules::new(&config.cache, route),
                    limits: RouteLimits::new(route, &config.rate_limits, &limits, &limiter),
                });
            }
        }
        Ok(Self {
            router: Router::new(&config.routes),
            compresses: config.routes.iter().any(|route| route.compression.is_some()),
            purges: config.routes.iter().any(|route| route.purge.is_some()),
            routes,
            upstreams,
            acceptors,
            limiter,
            gates: Gates::new(&config, metrics, before.map(|before| (&before.config, &before.gates))),
            no_route: metrics.route(NO_ROUTE),
            access_log: None,
            sticky_cookies: config
                .upstreams
                .iter()
                .filter_map(|upstream| upstream.sticky.as_ref())
                .map(|sticky| sticky.cookie.clone())
                .collect(),
            invalidations: config
                .cache
                .invalidate
                .iter()
                .map(|rule| (Condition::new(&rule.when), rule.clone()))
                .collect(),
            labels: config
                .listeners
                .iter()
                .map(|listener| listener.address.to_string().into())
                .collect(),
            config,
        })
    }

    /// Begins what upstreams do beside their requests, and ends it for those of `before` that are no longer used. Has to be called in
    /// a runtime of tokio.
    pub fn start_after(&self, before: Option<&Self>) {
        let gone = before.into_iter().flat_map(|before| &before.upstreams);
        for upstream in gone.filter(|gone| !self.upstreams.iter().any(|kept| Arc::ptr_eq(kept, gone))) {
            upstream.stop();
            upstream.retire_all_but(&self.upstreams);
        }
        for upstream in &self.upstreams {
            upstream.start();
        }
    }

    /// The ways in which queries count in the keys of routes.
    pub fn query_forms(&self) -> Vec<QueryOptions> {
        let mut forms: Vec<QueryOptions> = Vec::new();
        for rules in self.routes.iter().filter_map(|route| route.cache.as_ref()) {
            if !forms.contains(&rules.key.query) {
                forms.push(rules.key.query.clone());
            }
        }
        forms
    }

    /// The listener's address as configured.
    pub fn listener_label(&self, index: usize) -> Arc<str> {
        self.labels.get(index).cloned().unwrap_or_default()
    }
}

/// The upstream that has the name of this one.
fn changed<'a>(upstream: &config::Upstream, before: Option<&'a Generation>) -> Option<&'a Upstream> {
    let upstreams = &before?.upstreams;
    let same = upstreams.iter().find(|before| before.config().name == upstream.name)?;
    Some(same)
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
