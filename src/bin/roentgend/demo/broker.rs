//! The broker that the demo embeds, and a subscriber to it. On loopback only, without accounts: not for a box.

use anyhow::{Context, bail};
use roentgen::report::Report;
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Largest packet of broker and subscriber, in bytes.
const MAX_PACKET: usize = 1 << 20;

/// How long broker and subscriber may take to come up.
const START: Duration = Duration::from_secs(20);

/// Starts the broker on `port`, or a free one, and waits until it accepts connections. It ends with the process.
pub(super) fn start(port: Option<u16>) -> anyhow::Result<u16> {
    // Bound once by ourselves: so a taken port is an error here, and a free one is found.
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, port.unwrap_or(0)))
        .with_context(|| format!("cannot listen on port {}; give another with --mqtt-port", port.unwrap_or(0)))?;
    let address = probe.local_addr()?;
    drop(probe);
    let mut broker = Broker::new(config(address));
    thread::Builder::new().name("broker".into()).spawn(move || {
        if let Err(error) = broker.start() {
            log::error!("the embedded broker ended: {error}");
        }
    })?;
    let deadline = Instant::now() + START;
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        if Instant::now() > deadline {
            bail!("the embedded broker does not accept connections on {address}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(address.port())
}

fn config(listen: SocketAddr) -> Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: 10_000,
        max_payload_size: MAX_PACKET,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings { name: "mqtt".into(), listen, tls: None, next_connection_delay_ms: 1, connections };
    let router = RouterConfig {
        max_connections: 64,
        max_outgoing_packet_count: 200,
        max_segment_size: 16 << 20,
        max_segment_count: 4,
        ..RouterConfig::default()
    };
    Config { router, v4: Some(HashMap::from([("mqtt".to_owned(), server)])), ..Config::default() }
}

/// Receives reports from the broker, as any subscriber would.
pub(super) struct Subscriber {
    reports: Receiver<Report>,
}

impl Subscriber {
    /// Subscribes, and returns once the broker has acknowledged that: no report is missed.
    pub(super) fn start(port: u16, topic: &str) -> anyhow::Result<Self> {
        let mut options = MqttOptions::new("roentgen-demo-screen", Ipv4Addr::LOCALHOST.to_string(), port);
        options.set_max_packet_size(MAX_PACKET, MAX_PACKET).set_keep_alive(Duration::from_secs(30));
        let (client, mut connection) = Client::new(options, 8);
        client.subscribe(topic, QoS::AtLeastOnce).context("cannot subscribe")?;
        let (sender, reports) = channel();
        let (ready, is_ready) = channel();
        thread::Builder::new().name("screen".into()).spawn(move || {
            // The client lives as long as its connection is read.
            let _client = client;
            for event in connection.iter() {
                let goes_on = match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        // Nobody waits for it after a reconnect.
                        let _ = ready.send(());
                        true
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => match serde_json::from_slice(&publish.payload) {
                        Ok(report) => sender.send(report).is_ok(),
                        Err(error) => {
                            log::warn!("{}: not a report: {error}", publish.topic);
                            true
                        }
                    },
                    Ok(_) => true,
                    Err(error) => {
                        log::error!("the demo's subscriber lost the broker: {error}");
                        false
                    }
                };
                if !goes_on {
                    return;
                }
            }
        })?;
        is_ready.recv_timeout(START).context("the embedded broker does not acknowledge a subscription")?;
        Ok(Self { reports })
    }

    /// The reports that came since the last time.
    pub(super) fn received(&self) -> impl Iterator<Item = Report> {
        self.reports.try_iter()
    }
}
