//! State of 8 bits as bitsandbytes has it, in a safetensors file: `codes.<tensor>.<slot>`, of U8, and
//! `scales.<tensor>.<slot>`, of F32, one for each 256 codes. Slots that are never negative have the unsigned map.

use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize_to_file};
use wgpu_optim::{Blockwise, DynamicMap, Optimizer};

use crate::recording::{Result, refuse};

/// Every slot of a tensor, and the map of its numbers.
fn slots(optimizer: &Optimizer, tensor: &str) -> Result<Vec<(&'static str, DynamicMap)>> {
    let map = |nonnegative| if nonnegative { DynamicMap::unsigned() } else { DynamicMap::signed() };
    Ok(optimizer.rule(tensor)?.slots().into_iter().map(|slot| (slot.name, map(slot.nonnegative))).collect())
}

/// Sets all state to what a file has.
pub fn load(optimizer: &mut Optimizer, path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    for tensor in optimizer.tensors().to_vec() {
        for (slot, map) in slots(optimizer, &tensor.name)? {
            let part = |kind: &str, dtype: Dtype| -> Result<&[u8]> {
                let name = format!("{kind}.{}.{slot}", tensor.name);
                let part = file.tensor(&name).map_err(|error| format!("{}: {error}", path.display()))?;
                if part.dtype() != dtype {
                    refuse!("{}: {name} is {:?}, must be {dtype:?}", path.display(), part.dtype());
                }
                Ok(part.data())
            };
            let scales = part("scales", Dtype::F32)?.chunks_exact(4);
            let scales: Vec<f32> = scales.map(|bytes| f32::from_le_bytes(bytes.try_into().expect("4 bytes"))).collect();
            optimizer.set_state(&tensor.name, slot, &map.decode(part("codes", Dtype::U8)?, &scales)?)?;
        }
    }
    Ok(())
}

/// Writes all state.
pub fn save(optimizer: &Optimizer, path: &Path) -> Result<()> {
    let mut parts = vec![];
    for tensor in optimizer.tensors() {
        for (slot, map) in slots(optimizer, &tensor.name)? {
            let Blockwise { codes, scales } = map.encode(&optimizer.state_blocking(&tensor.name, slot)?)?;
            let scales: Vec<u8> = scales.into_iter().flat_map(f32::to_le_bytes).collect();
            let blocks = vec![scales.len() / 4];
            parts.push((format!("codes.{}.{slot}", tensor.name), Dtype::U8, tensor.shape.clone(), codes));
            parts.push((format!("scales.{}.{slot}", tensor.name), Dtype::F32, blocks, scales));
        }
    }
    let views =
        parts.iter().map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)));
    Ok(serialize_to_file(views.collect::<Result<Vec<_>>>()?, None, path)?)
}
