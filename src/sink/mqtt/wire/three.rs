//! MQTT 3.1.1. Its acknowledgement says that a publish came, and nothing else.

use super::{
    BAD_CLIENT_ID, BAD_PASSWORD, Ear, Granted, HUNG_UP, Hand, Happened, Kind, Message, NO_ANSWER, NOT_LET_IN, Next,
    Parcel, Plan, Trouble, UNAVAILABLE, Version, in_words, unanswered,
};
use rumqttc::mqttbytes::Error;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS,
    StateError, SubscribeReasonCode, TlsError,
};

pub(super) fn client(plan: &Plan, channel: usize) -> (Box<dyn Hand>, Box<dyn Ear>) {
    let mut options = MqttOptions::new(&plan.client_id, &plan.host, plan.port);
    options.set_clean_session(true);
    options.set_keep_alive(plan.keep_alive);
    options.set_max_packet_size(plan.max_packet, plan.max_packet);
    options.set_inflight(plan.in_flight);
    options.set_transport(plan.transport());
    if let Some((topic, payload)) = &plan.will {
        options.set_last_will(LastWill::new(topic, payload.clone(), QoS::AtLeastOnce, true));
    }
    if let Some((user, password)) = &plan.credentials {
        options.set_credentials(user, password.as_str());
    }
    let (client, events) = AsyncClient::new(options, channel);
    (Box::new(client), Box::new(events))
}

impl Hand for AsyncClient {
    fn publish(&self, parcel: Parcel<'_>) -> bool {
        self.try_publish(parcel.topic, QoS::AtLeastOnce, parcel.retain, parcel.payload).is_ok()
    }

    fn subscribe(&self, filter: &str) -> bool {
        self.try_subscribe(filter, QoS::AtLeastOnce).is_ok()
    }

    fn unsubscribe(&self, filter: &str) -> bool {
        self.try_unsubscribe(filter).is_ok()
    }

    fn disconnect(&self) -> bool {
        self.try_disconnect().is_ok()
    }
}

impl Ear for EventLoop {
    fn connect(&mut self) -> Next<'_, Granted> {
        Box::pin(async {
            self.poll().await.map_err(|error| described(&error))?;
            Ok(Granted { version: Version::Three, max_packet: None, retains: true })
        })
    }

    fn next(&mut self) -> Next<'_, Happened> {
        Box::pin(async { self.poll().await.map(happened).map_err(|error| described(&error)) })
    }
}

fn happened(event: Event) -> Happened {
    match event {
        Event::Outgoing(Outgoing::Publish(packet_id)) => Happened::Sent(packet_id),
        Event::Outgoing(Outgoing::Disconnect) => Happened::Disconnected,
        Event::Incoming(Packet::PubAck(ack)) => Happened::Answered(ack.pkid, Ok(())),
        Event::Incoming(Packet::SubAck(ack)) => {
            Happened::Subscribed(!ack.return_codes.contains(&SubscribeReasonCode::Failure))
        }
        Event::Incoming(Packet::Publish(publish)) => {
            let (topic, payload, retained) = (publish.topic, publish.payload, publish.retain);
            Happened::Received(Message { topic, payload, retained })
        }
        _ => Happened::Nothing,
    }
}

/// The client library's errors in words for people; its own print Rust's debug form.
fn described(error: &ConnectionError) -> Trouble {
    let other = |words: String| Trouble::new(Kind::Other, words);
    match error {
        ConnectionError::Io(error) => unanswered(error),
        ConnectionError::ConnectionRefused(code) => refused(*code),
        ConnectionError::MqttState(StateError::Deserialization(Error::PayloadSizeLimitExceeded(_))) => {
            Trouble::new(Kind::TooLarge, error.to_string())
        }
        // With TLS 1.3 the broker judges our certificate after the handshake: its refusal is the first thing that is read.
        ConnectionError::MqttState(StateError::Io(error) | StateError::Deserialization(Error::Io(error))) => {
            other(in_words(error))
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => other(HUNG_UP.into()),
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => other(NO_ANSWER.into()),
        ConnectionError::Tls(TlsError::Io(error)) => other(in_words(error)),
        ConnectionError::Tls(error) => other(format!("TLS: {error}")),
        error => other(error.to_string()),
    }
}

/// Why the broker does not let us in.
fn refused(code: ConnectReturnCode) -> Trouble {
    let not_spoken = code == ConnectReturnCode::RefusedProtocolVersion;
    let words = match code {
        ConnectReturnCode::BadUserNamePassword => BAD_PASSWORD,
        ConnectReturnCode::NotAuthorized => NOT_LET_IN,
        ConnectReturnCode::RefusedProtocolVersion => "the broker does not speak MQTT 3.1.1",
        ConnectReturnCode::BadClientId => BAD_CLIENT_ID,
        ConnectReturnCode::ServiceUnavailable => UNAVAILABLE,
        ConnectReturnCode::Success => "the broker refuses us",
    };
    Trouble::new(if not_spoken { Kind::NotSpoken } else { Kind::Other }, words)
}
