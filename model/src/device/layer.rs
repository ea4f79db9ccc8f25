//! Linear layers on a device: dense in the weight format, or quantised in ggml's bytes.

use std::borrow::Cow;

use blake3::Hasher;
use candle_core::quantized::{QMatMul, QStorage, QTensor};
use candle_core::{D, DType, Device, Module, Tensor};

use crate::block_loader::Layer;
use crate::error::ModelError;
use crate::tensors::StoredMatrix;
use crate::weights::{Matrix, Values};

/// `y = x * weight^T + bias` on a device: x `(rows, in)` and y `(rows, out)` in f32, bias `(out)` f32. Rows are rounded to
/// the weights' type and so are the sums: that is what tensor cores multiply. Quantised weights take f32.
#[derive(Debug)]
pub(crate) struct DeviceLinear {
    weight: Weight,
    bias: Option<Tensor>,
}

#[derive(Debug)]
enum Weight {
    /// `(out, in)`.
    Dense(Tensor),
    /// `(out, in + padding)`: rows end on a whole block of the format.
    Quantised { matrix: QMatMul, padding: usize },
}

impl DeviceLinear {
    /// Rows as the layer multiplies them, for layers that share an input. Of layers of several types, as a file may mix them,
    /// each takes them from the type of the first.
    pub(super) fn rounded(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(match &self.weight {
            Weight::Dense(weight) => x.to_dtype(weight.dtype())?,
            Weight::Quantised { padding: 0, .. } => x.contiguous()?,
            Weight::Quantised { padding, .. } => x.pad_with_zeros(D::Minus1, 0, *padding)?.contiguous()?,
        })
    }

    /// What [`DeviceLinear::rounded`] gave to `(rows, out)`.
    pub(super) fn forward(&self, rounded: &Tensor) -> Result<Tensor, ModelError> {
        let y = match &self.weight {
            Weight::Dense(weight) => rounded.to_dtype(weight.dtype())?.matmul(&weight.t()?)?.to_dtype(DType::F32)?,
            Weight::Quantised { matrix, .. } => matrix.forward(&rounded.to_dtype(DType::F32)?)?,
        };
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }
}

impl Layer for DeviceLinear {
    type Place = Device;

    fn load(device: &Device, stored: &StoredMatrix<'_>, digest: &mut Hasher) -> Result<Self, ModelError> {
        let ggml = stored.ggml(digest)?;
        let weight = match ggml.and_then(|rows| Some((rows.kind.ggml()?, rows))) {
            Some((kind, rows)) => {
                let storage = QStorage::from_data(Cow::Owned(rows.bytes), device, kind)?;
                let matrix = QMatMul::from_qtensor(QTensor::new(storage, (stored.outputs, rows.width))?)?;
                Weight::Quantised { matrix, padding: rows.width - stored.inner }
            }
            None => Weight::Dense(dense(&stored.dense(digest)?, device)?),
        };
        Ok(Self { weight, bias: None })
    }

    fn with_bias(self, device: &Device, bias: Tensor) -> Result<Self, ModelError> {
        Ok(Self { bias: Some(bias.to_device(device)?), ..self })
    }

    fn vector(device: &Device, vector: Tensor) -> Result<Tensor, ModelError> {
        Ok(vector.to_device(device)?)
    }
}

/// A copy of the weights on the device.
fn dense(matrix: &Matrix, device: &Device) -> Result<Tensor, ModelError> {
    let shape = (matrix.outputs, matrix.inner);
    Ok(match &matrix.values {
        Values::F32(weights) => Tensor::from_slice(weights.as_slice(), shape, device)?,
        Values::F16(weights) => Tensor::from_slice(weights.as_slice(), shape, device)?,
        Values::Bf16(weights) => Tensor::from_slice(weights.as_slice(), shape, device)?,
        Values::Quantised(_) => return Err(candle_core::Error::Msg("quantised weights are not dense".into()).into()),
    })
}
