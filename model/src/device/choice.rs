//! What a user names a device by.

use std::fmt;
use std::str::FromStr;

use super::ComputeDevice;
use crate::error::ModelError;

/// DEVICE on a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// `auto`: the first CUDA device, else Metal, else the CPU; of those that were compiled in.
    #[default]
    Auto,
    /// `cpu`: our kernels.
    Cpu,
    /// `cpu-candle`: what runs on accelerators, on the CPU: for tests, and to see what candle's libraries give.
    CpuCandle,
    /// `cuda:N`, or `cuda` for the first.
    Cuda(usize),
    /// `metal`.
    Metal,
}

impl DeviceChoice {
    /// Finds the device.
    ///
    /// # Errors
    /// [`ModelError::DeviceNotCompiled`] or [`ModelError::DeviceUnavailable`] if what was named cannot be had; `auto` always
    /// finds the CPU.
    pub fn open(self) -> Result<ComputeDevice, ModelError> {
        match self {
            Self::Auto => {
                let found = ComputeDevice::cuda(0).or_else(|_| ComputeDevice::metal());
                Ok(found.unwrap_or_else(|_| ComputeDevice::cpu()))
            }
            Self::Cpu => Ok(ComputeDevice::cpu()),
            Self::CpuCandle => Ok(ComputeDevice::cpu_candle()),
            Self::Cuda(ordinal) => ComputeDevice::cuda(ordinal),
            Self::Metal => ComputeDevice::metal(),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let unknown = || ModelError::BadDevice(text.to_string());
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cpu-candle" => Ok(Self::CpuCandle),
            "cuda" => Ok(Self::Cuda(0)),
            "metal" => Ok(Self::Metal),
            _ => {
                let ordinal = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                Ok(Self::Cuda(ordinal.parse().map_err(|_| unknown())?))
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::CpuCandle => f.write_str("cpu-candle"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["auto", "cpu", "cpu-candle", "cuda:0", "cuda:7", "metal"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        for name in ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "metal:0", "cuda:0 "] {
            let error = name.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.contains(&format!("\"{name}\"")) && error.contains("cuda:0"), "{error}");
            assert!(!error.contains("candle"), "it is no device for users: {error}");
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_device_that_was_not_compiled_in_says_how_to_build_it() {
        let error = DeviceChoice::Cuda(0).open().unwrap_err().to_string();
        assert!(error.contains("cuda:0") && error.contains("--features cuda"), "{error}");
        assert!(!error.contains('\n'));
    }

    #[test]
    fn automatic_choice_always_finds_one() {
        let found = DeviceChoice::Auto.open().unwrap();
        if cfg!(not(any(feature = "cuda", feature = "metal"))) {
            assert_eq!(found.to_string(), "cpu");
        }
    }
}
