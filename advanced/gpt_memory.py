"""Predict how much GPU memory the training of a GPT takes, without having a GPU.

The model is a decoder-only Transformer, by default GPT-2 small. Weights, gradients and
Adam take 16 bytes per parameter, in bfloat16 as in float32. What autograd saves grows
with the batch: compare it with what remains if each block is checkpointed.
"""

import argparse


def count_parameters(layers, width, context, vocabulary):
    """Return the number of parameters."""
    # Attention: matrices for query, key, value and output, each with a bias.
    attention = 4 * (width * width + width)

    # The MLP: from width to 4 * width and back, each with a bias.
    mlp = (width * 4 * width + 4 * width) + (4 * width * width + width)

    # Two LayerNorms, each with a scale and a shift.
    norms = 2 * (width + width)

    # The output layer has no weights besides: it shares those of the embedding.
    embeddings = vocabulary * width + context * width
    last_norm = width + width
    return embeddings + layers * (attention + mlp + norms) + last_norm


def saved_in_blocks(layers, width, tokens, checkpointed):
    """Return how many elements autograd saves in the blocks of the model.

    Attention is fused (scaled_dot_product_attention): no matrix of context by context
    is saved. Not counted are a few numbers per token, such as its mean and variance.
    """
    # The input of the first LayerNorm and its output; query, key and value; the output
    # of attention.
    attention = 1 + 1 + 3 + 1

    # The input of the second LayerNorm and its output; the input of GELU and its
    # output, both of which are four times as wide.
    mlp = 1 + 1 + 4 + 4

    one_block = (attention + mlp) * tokens * width
    if not checkpointed:
        return layers * one_block

    # The input of each block is saved. backward() computes all the rest once more, but
    # of one block at a time.
    inputs = layers * tokens * width
    return inputs + one_block - tokens * width


def saved_after_blocks(width, tokens, vocabulary):
    """Return how many elements are saved from the last LayerNorm to the loss."""
    # Its input and its output; for each token, the log-probability of every next one.
    return 2 * tokens * width + tokens * vocabulary


def show(name, in_float32, in_bfloat16):
    """Print numbers of bytes in GiB, which are 2**30 bytes."""
    print(f"{name:26}  {in_float32 / 2**30:7.2f}  {in_bfloat16 / 2**30:8.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12, help="number of blocks")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--context", type=int, default=1024, help="tokens in a text")
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--batch", type=int, default=8, help="texts in a batch")
    args = parser.parse_args()

    count = count_parameters(args.layers, args.width, args.context, args.vocabulary)
    print(f"{count:,} parameters\n")
    print(f"{'GiB':26}  float32  bfloat16")
    show("weights", 4 * count, 2 * count)
    show("gradients", 4 * count, 2 * count)

    # Two averages in float32. Beside weights in bfloat16, which would lose small
    # updates, there is also a copy of the weights in float32.
    show("Adam", (4 + 4) * count, (4 + 4 + 4) * count)

    tokens = args.batch * args.context
    after = saved_after_blocks(args.width, tokens, args.vocabulary)
    for checkpointed in (False, True):
        blocks = saved_in_blocks(args.layers, args.width, tokens, checkpointed)
        saved = blocks + after
        print("\ncheckpointed" if checkpointed else "\nwithout checkpointing")
        show("  saved in the blocks", 4 * blocks, 2 * blocks)
        show("  saved after them", 4 * after, 2 * after)
        show("  all of it", 16 * count + 4 * saved, 16 * count + 2 * saved)


if __name__ == "__main__":
    main()
