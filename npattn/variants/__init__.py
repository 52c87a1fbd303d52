"""The article's blocks with options: what other codebases build under the same names, each derived and checked.

A layer of npattn.attention comes here by itself when one of its options is not the article's: SELayer,
ChannelAttention, SpatialAttention and CBAM name them. There is no fused form of these pairs.

For those who load other people's weights:
    gate="torch_hard_sigmoid"  the hard sigmoid with PyTorch's slope, 1/6 rounded to float32 even in float64
    mix="before"               the mean of the descriptors; no codebase that we know sums them there
    momentum                   an option of SpatialAttention, 0.1 as PyTorch's default: the batch's share in the running
                               statistics. It needs norm=True
    num_batches_tracked        of SpatialAttention and CBAM, a plain int attribute: how many forwards in training mode
                               moved those. PyTorch keeps it among its buffers; it is in no state_dict here

    pooling    lp, lse, and maxima that share among ties
    gates      the hard sigmoid
    channel    the channel gate with every option
    se         that gate times x
    spatial    the spatial gate with every option
    cbam       both: order, parallel, residual, one gate alone
    eca        ECA: a one-dimensional convolution over the channels in place of the MLP
"""
