//! Evidence → Report: calibration and abstention.
