//! The shape lists: models as they are, and what is hard for a dispatcher.

/// A list of tensors, by name and shape.
pub type Shapes = Vec<(String, Vec<usize>)>;

/// A list and the name that `--shapes` takes.
#[derive(Clone, Copy)]
pub struct List {
    pub name: &'static str,
    pub shapes: fn() -> Shapes,
}

/// Every list.
pub const LISTS: [List; 8] = [
    List { name: "one_16m", shapes: || vec![("one".into(), vec![16_777_216])] },
    List { name: "gpt2", shapes: gpt2 },
    List { name: "resnet50", shapes: resnet50 },
    List { name: "convs126", shapes: convs },
    List { name: "many_small", shapes: || (0..1000).map(|i| (format!("t{i}"), vec![1024])).collect() },
    // Biases and the like: what a tensor costs that has next to no elements.
    List { name: "many_tiny", shapes: || (0..1000).map(|i| (format!("t{i}"), vec![64])).collect() },
    // As many elements as `many_small` in one tensor: the difference is what many tensors cost.
    List { name: "one_1m", shapes: || vec![("one".into(), vec![1_024_000])] },
    List { name: "ragged", shapes: ragged },
];

/// GPT-2 124M; the output layer is `wte` itself.
fn gpt2() -> Shapes {
    let d = 768;
    let mut list = vec![("wte".into(), vec![50257, d]), ("wpe".into(), vec![1024, d])];
    for layer in 0..12 {
        for (name, shape) in [
            ("ln_1.weight", vec![d]),
            ("ln_1.bias", vec![d]),
            ("attn.c_attn.weight", vec![d, 3 * d]),
            ("attn.c_attn.bias", vec![3 * d]),
            ("attn.c_proj.weight", vec![d, d]),
            ("attn.c_proj.bias", vec![d]),
            ("ln_2.weight", vec![d]),
            ("ln_2.bias", vec![d]),
            ("mlp.c_fc.weight", vec![d, 4 * d]),
            ("mlp.c_fc.bias", vec![4 * d]),
            ("mlp.c_proj.weight", vec![4 * d, d]),
            ("mlp.c_proj.bias", vec![d]),
        ] {
            list.push((format!("h.{layer}.{name}"), shape));
        }
    }
    list.extend([("ln_f.weight".into(), vec![d]), ("ln_f.bias".into(), vec![d])]);
    list
}

/// ResNet-50 for 1000 classes, as torchvision has it.
fn resnet50() -> Shapes {
    fn conv(list: &mut Shapes, name: &str, shape: [usize; 4]) {
        list.push((format!("{name}.conv"), shape.into()));
        list.extend(["weight", "bias"].map(|part| (format!("{name}.bn.{part}"), vec![shape[0]])));
    }
    let mut list = Shapes::new();
    conv(&mut list, "stem", [64, 3, 7, 7]);
    let mut input = 64;
    for (stage, (blocks, width)) in [(3, 64), (4, 128), (6, 256), (3, 512)].into_iter().enumerate() {
        let output = 4 * width;
        for block in 0..blocks {
            let name = |part| format!("layer{}.{block}.{part}", stage + 1);
            conv(&mut list, &name("1"), [width, input, 1, 1]);
            conv(&mut list, &name("2"), [width, width, 3, 3]);
            conv(&mut list, &name("3"), [output, width, 1, 1]);
            if block == 0 {
                conv(&mut list, &name("downsample"), [output, input, 1, 1]);
            }
            input = output;
        }
    }
    list.extend([("fc.weight".into(), vec![1000, input]), ("fc.bias".into(), vec![1000])]);
    list
}

/// 126 convolutions in the widths of a YOLO's stages, every third of them 3x3, the others 1x1.
fn convs() -> Shapes {
    let shape = |i: usize| {
        let (width, size) = (32 << (i / 26), [3, 1, 1][i % 3]);
        vec![width, width, size, size]
    };
    (0..126).map(|i| (format!("conv{i}"), shape(i))).collect()
}

/// 1000 lengths from 1 to 4096, evenly spaced and shuffled: 619 and 1000 have no common divisor.
fn ragged() -> Shapes {
    (0..1000).map(|i| (format!("t{i}"), vec![1 + i * 619 % 1000 * 4095 / 999])).collect()
}
