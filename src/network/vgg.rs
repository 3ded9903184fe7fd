//! VGG16 as data: the plan of its thirteen convolutions and five poolings (Simonyan & Zisserman, arXiv:1409.1556,
//! configuration D), its first layer reading one channel of grey levels. Not the weights.

/// Rows and columns of the network's input.
pub const INPUT_SIZE: usize = 224;

/// Channels of the last feature map.
pub const FEATURES: usize = 512;

/// One step of the trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A 3 × 3 convolution with ReLU: its name, channels in, channels out.
    Conv(&'static str, usize, usize),
    /// A 2 × 2 max pooling, stride 2.
    MaxPool2,
}

/// The trunk, from the grey image to the 7 × 7 × 512 feature map.
pub const TRUNK: [Step; 18] = [
    Step::Conv("block1_conv1", 1, 64),
    Step::Conv("block1_conv2", 64, 64),
    Step::MaxPool2,
    Step::Conv("block2_conv1", 64, 128),
    Step::Conv("block2_conv2", 128, 128),
    Step::MaxPool2,
    Step::Conv("block3_conv1", 128, 256),
    Step::Conv("block3_conv2", 256, 256),
    Step::Conv("block3_conv3", 256, 256),
    Step::MaxPool2,
    Step::Conv("block4_conv1", 256, 512),
    Step::Conv("block4_conv2", 512, 512),
    Step::Conv("block4_conv3", 512, 512),
    Step::MaxPool2,
    Step::Conv("block5_conv1", 512, 512),
    Step::Conv("block5_conv2", 512, 512),
    Step::Conv("block5_conv3", 512, 512),
    Step::MaxPool2,
];
