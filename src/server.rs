//! A configuration becomes listeners and services, and they live until they are told to stop.

mod bind;
pub mod notify;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::listeners::L4BufferSettings;
use pingora_core::listeners::ListenerConfig;
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::bind::{BindError, Bound};
use crate::admin::Admin;
use crate::admin::tasks::Tasks;
use crate::admin::warm::sources::keep_warm;
use crate::clock::Clock;
use crate::config::{Config, ListenAddress, Verify};
use crate::edge::FrontDoor;
use crate::edge::admission::Admission;
use crate::edge::reactor::Reactors;
use crate::generation::Generation;
use crate::log::ProgramLog;
use crate::log::access::{AccessLog, Destination};
use crate::metrics::{Metrics, Reload};
use crate::proxy::Proxy;
use crate::status::{Readiness, Status, UpstreamHealth};
use crate::tls::TlsConfigError;

/// How often certificate files are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(5);

/// How long the last log lines may take to be written.
const FLUSH_LOG: Duration = Duration::from_secs(5);

/// How long the last responses may take to be written to Redis.
const FLUSH_L2: Duration = Duration::from_secs(1);

/// How long connections may take to be closed after their last exchange.
const CLOSE_CONNECTIONS: Duration = Duration::from_secs(1);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{}", lines(.0))]
    Tls(Vec<TlsConfigError>),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("the access log cannot be opened: {0}")]
    AccessLog(std::io::Error),
    #[error("the threads for client connections cannot be started: {0}")]
    Threads(std::io::Error),
}

/// Why a new configuration is not in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("{}", lines(.0))]
    Tls(Vec<TlsConfigError>),
    #[error("a restart is needed for a change of {}", .0.join(", "))]
    NeedsRestart(Vec<&'static str>),
    #[error("the access log cannot be opened: {0}")]
    AccessLog(std::io::Error),
}

fn lines(errors: &[TlsConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A server that runs.
pub struct Server {
    /// Where it listens, in the order of the configuration.
    pub addresses: Vec<ListenAddress>,
    pub metrics_address: Option<SocketAddr>,
    pub admin_address: Option<SocketAddr>,
    proxy: Arc<Proxy>,
    readiness: Arc<Readiness>,
    program_log: Option<ProgramLog>,
    shutdown: watch::Sender<bool>,
    status_shutdown: watch::Sender<bool>,
    tasks: JoinSet<()>,
    services: JoinSet<()>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Binds every address, and serves. Has to be called in a runtime of tokio; the tasks run there.
    ///
    /// # Errors
    /// When a file that the configuration names cannot be used, or an address cannot be bound. Nothing is served then.
    pub fn start(config: Config, clock: Clock, program_log: Option<ProgramLog>) -> Result<Self, StartError> {
        let metrics = Metrics::new();
        warn_about(&config);
        let bound = bind::all(&config)?;
        let destination = Destination::open(config.log.access.as_ref()).map_err(StartError::AccessLog)?;
        let access_log = AccessLog::start(destination, metrics.log_dropped()).map_err(StartError::AccessLog)?;
        let generation = Generation::new(config, &metrics, &clock, None).map_err(StartError::Tls)?;
        let threads = generation.config.server.threads;
        let reactors = Reactors::start(threads, metrics.steady_connections().clone()).map_err(StartError::Threads)?;
        let proxy = Arc::new(Proxy::new(generation, metrics, Arc::new(access_log), clock));
        Ok(Self::serve(proxy, bound, Arc::new(reactors), program_log))
    }

    fn serve(proxy: Arc<Proxy>, bound: Bound, reactors: Arc<Reactors>, program_log: Option<ProgramLog>) -> Self {
        let (shutdown, stopping) = watch::channel(false);
        let (status_shutdown, mut status_stopping) = watch::channel(false);
        let mut admin_stopping = status_stopping.clone();
        let readiness = Arc::new(Readiness::default());
        let mut services = JoinSet::new();
        let addresses: Vec<_> = bound
            .listeners
            .iter()
            .map(|listener| listener.address.clone())
            .collect();
        services.spawn(reactors.clone().stop_with(stopping.clone()));
        for (index, listener) in bound.listeners.into_iter().enumerate() {
            let label = proxy.generation().listener_label(index);
            let door = FrontDoor::new(
                proxy.clone(),
                index,
                proxy.metrics.connections(&label),
                reactors.clone(),
            );
            let mut service = Service::new(label.to_string(), door);
            service.set_connection_filter(Arc::new(Admission::default()));
            let endpoint = match &listener.address {
                ListenAddress::Tcp(address) => ListenerConfig::tcp(address.to_string()),
                ListenAddress::Unix(path) => ListenerConfig::uds(path.display().to_string()),
            };
            // Our own buffers are smaller, and shrink while a connection waits.
            service.add_listener(endpoint.l4_buffer(L4BufferSettings::unbuffered()));
            let (fds, stopping) = (listener.fds, stopping.clone());
            services.spawn(async move { service.start_service(Some(fds), stopping, 1).await });
            tracing::info!(kind = "listener", address = %listener.address, configured = &*label, "listening");
        }
        let mut tasks = JoinSet::new();
        let mut metrics_address = None;
        if let Some((listener, address)) = bound.metrics {
            let upstreams = upstream_health(&proxy);
            let status = Arc::new(Status::new(proxy.metrics.clone(), readiness.clone(), upstreams));
            let stop = async move {
                let _ = status_stopping.wait_for(|stop| *stop).await;
            };
            tasks.spawn(crate::status::serve(listener, status, stop));
            tracing::info!(kind = "metrics", %address, "listening");
            metrics_address = Some(address);
        }
        let background = Arc::new(Tasks::new(proxy.clock.clone()));
        tasks.spawn(keep_warm(proxy.clone(), background.clone()));
        let mut admin_address = None;
        if let Some((listener, address)) = bound.admin {
            let admin = Arc::new(Admin::new(proxy.clone(), readiness.clone(), background));
            let stop = async move {
                let _ = admin_stopping.wait_for(|stop| *stop).await;
            };
            tasks.spawn(crate::admin::serve(listener, admin, stop));
            tracing::info!(kind = "admin", %address, "listening");
            admin_address = Some(address);
        }
        tasks.spawn(watch_certificates(proxy.clone()));
        tasks.spawn(crate::heap::follow(proxy.cache.memory.clone()));
        proxy.generation().start_after(None);
        readiness.ready();
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
        Self {
            addresses,
            metrics_address,
            admin_address,
            proxy,
            readiness,
            program_log,
            shutdown,
            status_shutdown,
            tasks,
            services,
        }
    }

    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// Puts a new configuration in force, for requests that begin from now on.
    ///
    /// # Errors
    /// Then the old one is in force as before, all of it.
    pub fn reload(&self, config: Config) -> Result<(), ReloadError> {
        let result = self.try_reload(config);
        self.proxy.metrics.reload(match result {
            Ok(()) => Reload::Applied,
            Err(_) => Reload::Refused,
        });
        result
    }

    /// A new configuration could not even be read.
    pub fn reload_refused(&self) {
        self.proxy.metrics.reload(Reload::Refused);
    }

    fn try_reload(&self, config: Config) -> Result<(), ReloadError> {
        let before = self.proxy.generation();
        let needs_restart = before.config.needs_restart(&config);
        if !needs_restart.is_empty() {
            return Err(ReloadError::NeedsRestart(needs_restart));
        }
        warn_about(&config);
        let generation =
            Generation::new(config, &self.proxy.metrics, &self.proxy.clock, Some(&before)).map_err(ReloadError::Tls)?;
        let log = &generation.config.log;
        // Opened anew even if nothing changed: the old file may have been moved away.
        let destination = Destination::open(log.access.as_ref()).map_err(ReloadError::AccessLog)?;
        self.proxy.access_log.switch(destination);
        if let Some(program_log) = &self.program_log {
            program_log.set_level(log.level);
        }
        self.proxy.replace(generation);
        self.proxy.generation().start_after(Some(&before));
        for acceptor in before.acceptors.iter().flatten() {
            report(&acceptor.reload_if_changed());
        }
        Ok(())
    }

    /// Fails `/readyz`, stops accepting after `shutdown_delay`, and waits until what is under way has ended, as long as
    /// `shutdown_grace` and `stream_grace` allow.
    pub async fn shut_down(mut self) {
        let server = self.proxy.generation().config.server.clone();
        self.readiness.drain();
        tracing::info!("draining");
        tokio::time::sleep(server.shutdown_delay).await;
        let since = Instant::now();
        let _ = self.shutdown.send(true);
        let work = &self.proxy.work;
        let short = tokio::time::timeout_at(since + server.shutdown_grace, work.until(|short, _| short == 0)).await;
        if short.is_err() {
            tracing::warn!(requests = work.short(), "requests are cut off: shutdown_grace is over");
        }
        let streams = work.until(|_, streams| streams == 0);
        if tokio::time::timeout_at(since + server.stream_grace.max(server.shutdown_grace), streams)
            .await
            .is_err()
        {
            tracing::warn!(streams = work.streams(), "streams are cut off: stream_grace is over");
        }
        if work.short() == 0 && work.streams() == 0 {
            let _ = tokio::time::timeout(CLOSE_CONNECTIONS, work.connections_closed()).await;
        }
        if let Some(l2) = &self.proxy.cache.l2
            && tokio::time::timeout(FLUSH_L2, l2.flushed()).await.is_err()
        {
            tracing::warn!("responses are not written to Redis any more");
        }
        let _ = tokio::time::timeout(FLUSH_L2, self.proxy.tell_hottest()).await;
        let _ = self.status_shutdown.send(true);
        self.services.shutdown().await;
        self.tasks.shutdown().await;
        let access_log = self.proxy.access_log.clone();
        let _ = tokio::task::spawn_blocking(move || access_log.close(FLUSH_LOG)).await;
        tracing::info!("stopped");
    }
}

fn upstream_health(proxy: &Arc<Proxy>) -> impl Fn() -> Vec<UpstreamHealth> + Send + Sync + 'static {
    let proxy = proxy.clone();
    move || {
        let generation = proxy.generation();
        let health = generation.upstreams.iter().map(|upstream| {
            let zone = upstream.zone();
            UpstreamHealth {
                name: upstream.config().name.clone(),
                live: zone.live(),
                total: zone.members().len(),
            }
        });
        health.collect()
    }
}

async fn watch_certificates(proxy: Arc<Proxy>) {
    let mut every = tokio::time::interval(CERTIFICATES_EVERY);
    loop {
        every.tick().await;
        for acceptor in proxy.generation().acceptors.iter().flatten() {
            let acceptor = acceptor.clone();
            // Reads files.
            if let Ok(reload) = tokio::task::spawn_blocking(move || acceptor.reload_if_changed()).await {
                report(&reload);
            }
        }
    }
}

fn report(reload: &crate::edge::tls::Reload) {
    for cert in &reload.taken_up {
        tracing::info!(cert = %cert.display(), "certificate taken up");
    }
    for error in &reload.errors {
        tracing::error!(%error, "a certificate is not taken up, the one before stays in force");
    }
}

fn warn_about(config: &Config) {
    for upstream in &config.upstreams {
        if upstream.tls.as_ref().is_some_and(|tls| tls.verify == Verify::Nothing) {
            tracing::warn!(
                upstream = &*upstream.name,
                "tls.verify is off: whoever is in between can read and change everything"
            );
        }
    }
}
