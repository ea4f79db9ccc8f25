//! Activations as they travel between blocks: `(rows, hidden)` in the element type that belongs to the weight format, and as raw
//! little-endian bytes.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use half::{bf16, f16};
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::wire::ElementType;

use crate::error::ModelError;

/// The element type of activations between blocks for weights of `format`.
pub fn dtype(format: WeightFormat) -> DType {
    match ElementType::from(format) {
        ElementType::F32 => DType::F32,
        ElementType::F16 => DType::F16,
        ElementType::Bf16 => DType::BF16,
    }
}

/// Bytes of one element of the activations for weights of `format`.
pub fn element_bytes(format: WeightFormat) -> usize {
    ElementType::from(format).bytes()
}

/// Raw bytes of `rows` rows of `width` elements.
pub fn byte_count(format: WeightFormat, rows: usize, width: usize) -> usize {
    rows.saturating_mul(width).saturating_mul(element_bytes(format))
}

/// The tensor's elements in row-major order, little-endian.
///
/// # Errors
/// [`ModelError::BadInput`] if the elements are neither f32, f16 nor bf16.
pub fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>, ModelError> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let (start, end) = layout.contiguous_offsets().unwrap_or((0, 0));
    let bytes = match &*storage {
        Storage::Cpu(CpuStorage::F32(data)) => bytemuck::cast_slice(&data[start..end]).to_vec(),
        Storage::Cpu(CpuStorage::F16(data)) => bytemuck::cast_slice(&data[start..end]).to_vec(),
        Storage::Cpu(CpuStorage::BF16(data)) => bytemuck::cast_slice(&data[start..end]).to_vec(),
        _ => {
            return Err(ModelError::BadInput {
                found: format!("{:?} on {:?}", tensor.dtype(), tensor.device()),
                expected: "f32, f16 or bf16 on the CPU".into(),
            });
        }
    };
    Ok(bytes)
}

/// The tensor `(rows, width)` of raw little-endian `bytes`.
///
/// # Errors
/// [`ModelError::WrongByteCount`] if the bytes are not exactly that many elements.
pub fn from_bytes(format: WeightFormat, rows: usize, width: usize, bytes: &[u8]) -> Result<Tensor, ModelError> {
    let expected = byte_count(format, rows, width);
    if bytes.len() != expected {
        return Err(ModelError::WrongByteCount { found: bytes.len(), expected, rows, width, format });
    }
    let shape = (rows, width);
    let tensor = match ElementType::from(format) {
        ElementType::F32 => Tensor::from_vec(elements::<f32>(bytes), shape, &Device::Cpu),
        ElementType::F16 => Tensor::from_vec(elements::<f16>(bytes), shape, &Device::Cpu),
        ElementType::Bf16 => Tensor::from_vec(elements::<bf16>(bytes), shape, &Device::Cpu),
    };
    Ok(tensor?)
}

/// A copy of `bytes` as elements, whatever their alignment.
fn elements<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    let mut values = vec![T::zeroed(); bytes.len() / size_of::<T>()];
    bytemuck::cast_slice_mut(&mut values).copy_from_slice(bytes);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_journey() {
        for format in WeightFormat::ALL {
            let bytes: Vec<u8> = (0..byte_count(format, 3, 5)).map(|i| i as u8).collect();
            let tensor = from_bytes(format, 3, 5, &bytes).unwrap();
            assert_eq!(tensor.dims(), [3, 5]);
            assert_eq!(to_bytes(&tensor).unwrap(), bytes);
            let two = tensor.narrow(0, 1, 2).unwrap();
            assert_eq!(to_bytes(&two).unwrap(), bytes[byte_count(format, 1, 5)..]);
            assert!(from_bytes(format, 3, 4, &bytes).is_err());
        }
    }
}
