//! The promise: a film before the camera is reported once, whatever format the camera has and however often it is unplugged.
//! With the real daemon and a camera that is preloaded into it (tests/support/fake_camera.c), since few machines that run
//! tests have one.
#![cfg(feature = "camera")]

mod drivers;
mod films;
mod gates;
#[path = "../support/light_box.rs"]
mod light_box;
mod restarts;
#[path = "../support/mod.rs"]
mod support;
mod world;
