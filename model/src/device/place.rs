//! A device that was found: where blocks compute, and what it is called in numeric classes.

use std::fmt;

use candle_core::Device;
use swarm_protocol::model_id::{NumericClass, WeightFormat};

use crate::error::ModelError;
use crate::kv::KvFormat;

/// Where blocks compute; found by [`crate::DeviceChoice::open`].
#[derive(Debug, Clone)]
pub struct ComputeDevice {
    /// `None`: our kernels.
    candle: Option<Device>,
    /// For people.
    name: String,
    /// What the order of additions depends on.
    arithmetic: String,
}

impl ComputeDevice {
    /// The CPU with our kernels.
    pub fn cpu() -> Self {
        Self { candle: None, name: "cpu".into(), arithmetic: "fma".into() }
    }

    /// The CPU with candle's operations, and the library for them that was compiled in.
    pub(super) fn cpu_candle() -> Self {
        let library = match (candle_core::utils::has_mkl(), candle_core::utils::has_accelerate()) {
            (true, _) => "candle-mkl",
            (_, true) => "candle-accelerate",
            _ => "candle",
        };
        Self { candle: Some(Device::Cpu), name: "cpu-candle".into(), arithmetic: library.into() }
    }

    #[cfg(feature = "cuda")]
    pub(super) fn cuda(ordinal: usize) -> Result<Self, ModelError> {
        let name = format!("cuda:{ordinal}");
        let unavailable = |reason: &dyn fmt::Display| ModelError::DeviceUnavailable {
            device: name.clone(),
            reason: reason.to_string(),
        };
        let device = Device::new_cuda(ordinal).map_err(|error| unavailable(&error))?;
        let cuda = device.as_cuda_device().map_err(|error| unavailable(&error))?;
        let capability = cuda.cuda_stream().context().compute_capability();
        let (major, minor) = capability.map_err(|error| unavailable(&error))?;
        Ok(Self { candle: Some(device), arithmetic: format!("cuda-sm{major}{minor}"), name })
    }

    #[cfg(not(feature = "cuda"))]
    pub(super) fn cuda(ordinal: usize) -> Result<Self, ModelError> {
        Err(ModelError::DeviceNotCompiled { device: format!("cuda:{ordinal}"), feature: "cuda" })
    }

    #[cfg(feature = "metal")]
    pub(super) fn metal() -> Result<Self, ModelError> {
        let device = Device::new_metal(0)
            .map_err(|error| ModelError::DeviceUnavailable { device: "metal".into(), reason: error.to_string() })?;
        Ok(Self { candle: Some(device), name: "metal".into(), arithmetic: "metal".into() })
    }

    #[cfg(not(feature = "metal"))]
    pub(super) fn metal() -> Result<Self, ModelError> {
        Err(ModelError::DeviceNotCompiled { device: "metal".into(), feature: "metal" })
    }

    /// The candle device that computes; `None` where our kernels do.
    pub(crate) fn candle(&self) -> Option<&Device> {
        self.candle.as_ref()
    }

    /// Bytes that are free in the device's own memory; `None` if it shares the system's.
    pub fn free_memory(&self) -> Option<u64> {
        #[cfg(feature = "cuda")]
        if let Some(Device::Cuda(device)) = &self.candle {
            return device.cuda_stream().context().mem_get_info().ok().map(|(free, _)| free as u64);
        }
        None
    }

    /// `<format>/<arithmetic>/<arch>-<os>`, with what keys and values are in behind the format if it is another type than the
    /// activations' (`bf16+kv8/fma/x86_64-linux`): with our kernels (`fma`) the order of additions is ours everywhere, on an
    /// accelerator its libraries'; cosines and sines are the system's.
    pub(crate) fn numeric_class(&self, format: WeightFormat, kv: KvFormat) -> Result<NumericClass, ModelError> {
        let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
        NumericClass::new(format!("{format}{}/{}/{arch}-{os}", kv.class_suffix(), self.arithmetic))
            .map_err(|error| ModelError::config("numeric class", error.to_string()))
    }
}

impl fmt::Display for ComputeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
