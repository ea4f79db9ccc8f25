//! Blocks on an accelerator: the same block over candle's own operations, which run on any of candle's devices.
//!
//! Weights, keys and values stay on the device; activations come from the host's memory and return to it. What differs
//! from our kernels is the order of additions, which the libraries behind candle choose by shape and device: results
//! agree up to rounding, and are of a numeric class of their own.

mod attention;
mod block;
mod choice;
mod feed_forward;
mod kv;
mod layer;
mod place;

pub use choice::DeviceChoice;
pub use place::ComputeDevice;

pub(crate) use block::DeviceBlocks;
pub(crate) use kv::DeviceKv;
pub(crate) use layer::DeviceLinear;
