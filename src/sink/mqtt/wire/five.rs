//! MQTT 5. Its acknowledgement says whether the broker took a publish, and why not; beside each payload stand its kind, its
//! schema, the box's name and how long it is worth keeping; and the broker says how large a packet it takes.

use super::{
    About, BAD_CLIENT_ID, BAD_PASSWORD, Ear, Granted, HUNG_UP, Hand, Happened, Kind, Message, NO_ANSWER, NOT_LET_IN,
    Next, Parcel, Plan, Refusal, Trouble, UNAVAILABLE, Version, in_words, unanswered,
};
use rumqttc::v5::mqttbytes::v5::{
    ConnAckProperties, ConnectReturnCode, DisconnectReasonCode, LastWill, LastWillProperties, Packet, PubAckReason,
    PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error, QoS};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::{Outgoing, TlsError};

const JSON: &str = "application/json";

/// That a payload is UTF-8 text.
const TEXT: u8 = 1;

pub(super) fn client(plan: &Plan, channel: usize) -> (Box<dyn Hand>, Box<dyn Ear>) {
    let mut options = MqttOptions::new(&plan.client_id, &plan.host, plan.port);
    // With no session expiry beside it: the broker forgets the session with the connection.
    options.set_clean_start(true);
    options.set_keep_alive(plan.keep_alive);
    // The broker then leaves out what is larger, instead of ending the connection with it.
    options.set_max_packet_size(Some(u32::try_from(plan.max_packet).unwrap_or(u32::MAX)));
    options.set_outgoing_inflight_upper_limit(plan.in_flight);
    options.set_transport(plan.transport());
    if let Some((topic, payload)) = &plan.will {
        let properties = LastWillProperties {
            delay_interval: None,
            payload_format_indicator: Some(TEXT),
            message_expiry_interval: None,
            content_type: Some(JSON.into()),
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
        };
        options.set_last_will(LastWill::new(topic, payload.clone(), QoS::AtLeastOnce, true, Some(properties)));
    }
    if let Some((user, password)) = &plan.credentials {
        options.set_credentials(user, password.as_str());
    }
    let (client, events) = AsyncClient::new(options, channel);
    (Box::new(Client { client, device: plan.device.clone() }), Box::new(events))
}

struct Client {
    client: AsyncClient,
    device: String,
}

impl Hand for Client {
    fn publish(&self, parcel: Parcel<'_>) -> bool {
        let Parcel { topic, retain, payload, about } = parcel;
        let properties = properties(&about, &self.device, payload.is_empty());
        self.client.try_publish_with_properties(topic, QoS::AtLeastOnce, retain, payload, properties).is_ok()
    }

    fn subscribe(&self, filter: &str) -> bool {
        self.client.try_subscribe(filter, QoS::AtLeastOnce).is_ok()
    }

    fn unsubscribe(&self, filter: &str) -> bool {
        self.client.try_unsubscribe(filter).is_ok()
    }

    fn disconnect(&self) -> bool {
        self.client.try_disconnect().is_ok()
    }
}

fn properties(about: &About<'_>, device: &str, is_empty: bool) -> PublishProperties {
    if is_empty {
        return PublishProperties::default();
    }
    let said = [("schema", about.schema), ("device", Some(device)), ("report_id", about.report_id)];
    let said = said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    PublishProperties {
        payload_format_indicator: Some(TEXT),
        message_expiry_interval: about.expires_s,
        user_properties: said.collect(),
        content_type: Some(JSON.into()),
        ..PublishProperties::default()
    }
}

impl Ear for EventLoop {
    fn connect(&mut self) -> Next<'_, Granted> {
        Box::pin(async {
            let event = self.poll().await.map_err(|error| unconnected(&error))?;
            let Event::Incoming(Packet::ConnAck(ack)) = event else { return Ok(granted(None)) };
            let granted = granted(ack.properties.as_ref());
            match ack.properties.and_then(|said| said.max_qos) {
                Some(0) => {
                    Err(Trouble::new(Kind::Other, "the broker takes nothing at QoS 1, so that reports could be lost"))
                }
                _ => Ok(granted),
            }
        })
    }

    fn next(&mut self) -> Next<'_, Happened> {
        Box::pin(async { self.poll().await.map(happened).map_err(|error| described(&error)) })
    }
}

fn granted(said: Option<&ConnAckProperties>) -> Granted {
    Granted {
        version: Version::Five,
        max_packet: said.and_then(|said| said.max_packet_size).map(|bytes| bytes as usize),
        retains: said.and_then(|said| said.retain_available) != Some(0),
    }
}

fn happened(event: Event) -> Happened {
    match event {
        Event::Outgoing(Outgoing::Publish(packet_id)) => Happened::Sent(packet_id),
        Event::Outgoing(Outgoing::Disconnect) => Happened::Disconnected,
        Event::Incoming(Packet::PubAck(ack)) => Happened::Answered(ack.pkid, answer(ack.reason)),
        Event::Incoming(Packet::SubAck(ack)) => {
            Happened::Subscribed(ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_))))
        }
        Event::Incoming(Packet::Publish(publish)) => match String::from_utf8(publish.topic.to_vec()) {
            Ok(topic) => Happened::Received(Message { topic, payload: publish.payload, retained: publish.retain }),
            Err(_) => Happened::Nothing,
        },
        _ => Happened::Nothing,
    }
}

/// Whether a publish was taken, and what to do where it was not.
fn answer(reason: PubAckReason) -> Result<(), Refusal> {
    let refusal = |why, lasting| Err(Refusal { why, lasting });
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
        PubAckReason::NotAuthorized => refusal("the broker's rules do not let this box publish there", false),
        PubAckReason::QuotaExceeded => refusal("the broker says that a quota of it is exceeded", false),
        PubAckReason::TopicNameInvalid => refusal("the broker does not accept this topic ([mqtt.topics])", false),
        PubAckReason::PayloadFormatInvalid => {
            refusal("the broker says that its payload is not what it should be", true)
        }
        PubAckReason::PacketIdentifierInUse => refusal("the broker has mixed up two messages", false),
        PubAckReason::UnspecifiedError | PubAckReason::ImplementationSpecificError => {
            refusal("the broker does not say why; see its log", false)
        }
    }
}

/// Why a connection was not made. A broker that knows only 3.1.1 answers in words that are none in 5, or hangs up.
fn unconnected(error: &ConnectionError) -> Trouble {
    let trouble = described(error);
    let is_strange = match error {
        ConnectionError::ConnectionRefused(code) => {
            use ConnectReturnCode::{MalformedPacket, ProtocolError, UnsupportedProtocolVersion};
            matches!(code, UnsupportedProtocolVersion | ProtocolError | MalformedPacket)
        }
        ConnectionError::NotConnAck(_) | ConnectionError::Timeout(_) => true,
        // What follows an answer of the older kind is missing; but what TLS says is no question of versions.
        ConnectionError::MqttState(StateError::Io(error) | StateError::Deserialization(Error::Io(error))) => {
            !error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
        }
        ConnectionError::MqttState(StateError::ConnectionAborted | StateError::Deserialization(_)) => true,
        ConnectionError::MqttState(_) => false,
        _ => return trouble,
    };
    if is_strange { Trouble { kind: Kind::NotSpoken, ..trouble } } else { trouble }
}

/// The client library's errors in words for people; its own print Rust's debug form.
fn described(error: &ConnectionError) -> Trouble {
    let other = |words: String| Trouble::new(Kind::Other, words);
    match error {
        ConnectionError::Io(error) => unanswered(error),
        ConnectionError::ConnectionRefused(code) => other(refused(*code)),
        ConnectionError::MqttState(StateError::Deserialization(Error::PayloadSizeLimitExceeded { .. })) => {
            Trouble::new(Kind::TooLarge, error.to_string())
        }
        // With TLS 1.3 the broker judges our certificate after the handshake: its refusal is the first thing that is read.
        ConnectionError::MqttState(StateError::Io(error) | StateError::Deserialization(Error::Io(error))) => {
            other(in_words(error))
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => other(HUNG_UP.into()),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => other(ended(*reason_code)),
        ConnectionError::Timeout(_) => other(NO_ANSWER.into()),
        ConnectionError::Tls(TlsError::Io(error)) => other(in_words(error)),
        ConnectionError::Tls(error) => other(format!("TLS: {error}")),
        error => other(error.to_string()),
    }
}

/// Why the broker does not let us in.
fn refused(code: ConnectReturnCode) -> String {
    match code {
        ConnectReturnCode::BadUserNamePassword => BAD_PASSWORD.into(),
        ConnectReturnCode::NotAuthorized | ConnectReturnCode::Banned => NOT_LET_IN.into(),
        ConnectReturnCode::ClientIdentifierNotValid => BAD_CLIENT_ID.into(),
        ConnectReturnCode::ServerUnavailable | ConnectReturnCode::ServerBusy => UNAVAILABLE.into(),
        ConnectReturnCode::UnsupportedProtocolVersion => "the broker does not speak MQTT 5".into(),
        code => format!("the broker refuses us: {code:?}"),
    }
}

/// Why the broker has ended the connection.
fn ended(code: DisconnectReasonCode) -> String {
    match code {
        DisconnectReasonCode::SessionTakenOver => {
            "somebody else has connected with this device's name: give each box its own".into()
        }
        DisconnectReasonCode::ServerShuttingDown => "the broker is being stopped".into(),
        DisconnectReasonCode::NotAuthorized => NOT_LET_IN.into(),
        code => format!("{HUNG_UP}: {code:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_taken_is_never_an_acknowledgement() {
        assert_eq!(answer(PubAckReason::Success), Ok(()));
        assert_eq!(answer(PubAckReason::NoMatchingSubscribers), Ok(()), "the broker has it, and nobody wants it");
        let lasting = |reason| answer(reason).expect_err("it is a refusal").lasting;
        for reason in [
            PubAckReason::UnspecifiedError,
            PubAckReason::ImplementationSpecificError,
            PubAckReason::NotAuthorized,
            PubAckReason::TopicNameInvalid,
            PubAckReason::PacketIdentifierInUse,
            PubAckReason::QuotaExceeded,
        ] {
            assert!(!lasting(reason), "{reason:?} is mended at the broker, not in the report");
        }
        assert!(lasting(PubAckReason::PayloadFormatInvalid));
    }

    #[test]
    fn what_removes_a_retained_message_carries_nothing() {
        let about = About { schema: Some("a/1"), report_id: Some("7"), expires_s: Some(60) };
        assert_eq!(properties(&about, "box", true), PublishProperties::default());
        let said = properties(&about, "box", false);
        assert_eq!((said.content_type.as_deref(), said.message_expiry_interval), (Some(JSON), Some(60)));
        let pairs: Vec<_> = said.user_properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("schema", "a/1"), ("device", "box"), ("report_id", "7")]);
    }

    #[test]
    fn who_does_not_know_the_version_is_told_from_who_does_not_want_us() {
        let kind = |error: ConnectionError| unconnected(&error).kind;
        let refused = |code| kind(ConnectionError::ConnectionRefused(code));
        assert_eq!(refused(ConnectReturnCode::UnsupportedProtocolVersion), Kind::NotSpoken);
        assert_eq!(refused(ConnectReturnCode::NotAuthorized), Kind::Other);
        assert_eq!(refused(ConnectReturnCode::BadUserNamePassword), Kind::Other);
        assert_eq!(kind(ConnectionError::MqttState(StateError::ConnectionAborted)), Kind::NotSpoken);
        let io = |kind: std::io::ErrorKind| ConnectionError::Io(kind.into());
        assert_eq!(kind(io(std::io::ErrorKind::ConnectionRefused)), Kind::Other);
        assert_eq!(kind(io(std::io::ErrorKind::ConnectionReset)), Kind::NotSpoken);
        let too_large = Error::PayloadSizeLimitExceeded { pkt_size: 9, max: 1 };
        let too_large = ConnectionError::MqttState(StateError::Deserialization(too_large));
        assert_eq!(described(&too_large).kind, Kind::TooLarge);
    }
}
