//! Asking the router for a way in (UPnP), on librqbit's.

use std::time::Duration;

use librqbit_upnp::{UpnpPortForwarder, UpnpPortForwarderOptions};
use tokio::task::JoinHandle;

use super::DiscoveryError;

/// A mapping that is not renewed ends after this: also when this process does. It is renewed at half of it.
const LEASE: Duration = Duration::from_secs(600);
/// How often a router is looked for: it may have been away, or be another.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// How long one look waits for answers.
const LOOK_FOR: Duration = Duration::from_secs(10);

/// Keeps a TCP port of the router's mapped to ours. Dropping it lets the mapping run out.
#[derive(Debug)]
pub struct PortMapping {
    task: JoinHandle<()>,
}

impl PortMapping {
    /// Begins to look for a router; nobody waits for it, and nobody is told if there is none.
    ///
    /// # Errors
    /// If the port is not one.
    pub fn start(port: u16) -> Result<Self, DiscoveryError> {
        if port == 0 {
            return Err(DiscoveryError::PortMapping("there is no port to map".to_owned()));
        }
        let options = UpnpPortForwarderOptions {
            lease_duration: LEASE,
            discover_interval: LOOK_EVERY,
            discover_timeout: LOOK_FOR,
        };
        let forwarder = UpnpPortForwarder::new(vec![port], Some(options), None)
            .map_err(|error| DiscoveryError::PortMapping(format!("{error:#}")))?;
        Ok(Self {
            task: tokio::spawn(async move {
                forwarder.run_forever().await;
            }),
        })
    }
}

impl Drop for PortMapping {
    fn drop(&mut self) {
        self.task.abort();
    }
}
