//! The MQTT sink.
