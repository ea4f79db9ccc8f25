//! ggml's numbers of tensor types.

use swarm_protocol::wire::ElementType;

use crate::kernels::QuantType;
use crate::stored_type::StoredType;

/// The types that are read; numbers are ggml's (`enum ggml_type`).
const KNOWN: [(u32, StoredType); 12] = [
    (0, StoredType::Float(ElementType::F32)),
    (1, StoredType::Float(ElementType::F16)),
    (2, StoredType::Quantised(QuantType::Q4_0)),
    (3, StoredType::Quantised(QuantType::Q4_1)),
    (6, StoredType::Quantised(QuantType::Q5_0)),
    (7, StoredType::Quantised(QuantType::Q5_1)),
    (8, StoredType::Quantised(QuantType::Q8_0)),
    (12, StoredType::Quantised(QuantType::Q4K)),
    (13, StoredType::Quantised(QuantType::Q5K)),
    (14, StoredType::Quantised(QuantType::Q6K)),
    (30, StoredType::Float(ElementType::Bf16)),
    (39, StoredType::Quantised(QuantType::Mxfp4)),
];

/// Other types by name, for messages.
const OTHER: [(u32, &str); 26] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
];

/// The type of ggml's number `number`.
///
/// # Errors
/// What the type is called, if it is none that is read.
pub(super) fn stored_type(number: u32) -> Result<StoredType, String> {
    if let Some((_, known)) = KNOWN.iter().find(|(known, _)| *known == number) {
        return Ok(*known);
    }
    let name = OTHER.iter().find(|(other, _)| *other == number).map(|(_, name)| name.to_string());
    Err(name.unwrap_or_else(|| format!("number {number} of ggml's types")))
}

/// ggml's number of a type.
pub(crate) fn type_number(stored: StoredType) -> Option<u32> {
    KNOWN.iter().find(|(_, known)| *known == stored).map(|(number, _)| *number)
}

/// The types that are read, for messages.
pub(super) const READ: &str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K and MXFP4";

/// Elements in a block of a type, and the block's bytes.
pub(super) fn block(stored: StoredType) -> (u64, u64) {
    match stored {
        StoredType::Float(element) => (1, element.bytes() as u64),
        StoredType::Quantised(kind) => (kind.block_elements() as u64, kind.block_bytes() as u64),
        StoredType::Other(dtype) => (1, dtype.bitsize() as u64 / 8),
    }
}
