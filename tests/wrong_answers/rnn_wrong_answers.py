"""Wrong answers to rnn/rnn_exercises.py, each with words that the verdict has.

A name ends in two underscores and what is wrong.
"""

import math

import torch
from rnn_solutions import attend_with_cache
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention


def encode_text__unsorted(text):
    """for text = 'hello' your answer[0] is 'helo', wanted 'ehlo'"""
    vocabulary = "".join(dict.fromkeys(text))
    indices = [vocabulary.index(char) for char in text]
    return vocabulary, torch.tensor(indices, dtype=torch.int64)


def encode_text__stripped(text):
    """for text ="""
    text = text.strip()
    vocabulary = "".join(sorted(set(text)))
    indices = [vocabulary.index(char) for char in text]
    return vocabulary, torch.tensor(indices, dtype=torch.int64)


def encode_text__by_code_points(text):
    """your answer[1][0] is 104, wanted 1"""
    indices = [ord(char) for char in text]
    return "".join(sorted(set(text))), torch.tensor(indices, dtype=torch.int64)


def encode_text__empty_as_floats(text):
    """your answer[1] has dtype torch.float32, wanted torch.int64"""
    vocabulary = "".join(sorted(set(text)))
    return vocabulary, torch.tensor([vocabulary.index(char) for char in text])


def encode_text__with_a_list_as_vocabulary(text):
    """your answer[0] is of type list, wanted 'ehlo'"""
    vocabulary = sorted(set(text))
    return vocabulary, torch.tensor([vocabulary.index(char) for char in text])


def bits_per_character__in_nats(logits, targets):
    """for logits of shape (2, 3, 4), targets of shape (2, 3) your answer is"""
    return cross_entropy(logits.flatten(0, 1), targets.flatten())


def bits_per_character__that_overflow(logits, targets):
    """your answer is inf, wanted"""
    bits = -logits.softmax(dim=2).log2()
    return bits.gather(2, targets[..., None]).mean()


def bits_per_character__with_epsilon(logits, targets):
    """for logits of shape (1, 2, 3), targets of shape (1, 2) your answer is"""
    bits = -(logits.softmax(dim=2) + 1e-30).log2()
    return bits.gather(2, targets[..., None]).mean()


def bits_per_character__with_the_classes_in_the_middle(logits, targets):
    """Error:"""
    return cross_entropy(logits, targets) / math.log(2)


def bits_per_character__over_the_steps(logits, targets):
    """for logits of shape (2, 3, 4), targets of shape (2, 3) your answer is"""
    bits = -logits.log_softmax(dim=0) / math.log(2)
    return bits.gather(2, targets[..., None]).mean()


def elman_states__without_memory(x, h, w_ih, w_hh, bias):
    """your answer[1, 0, 0] is"""
    return (x @ w_ih.T + h @ w_hh.T + bias).tanh()


def elman_states__with_the_transposed_weight(x, h, w_ih, w_hh, bias):
    """your answer[0, 0, 0] is"""
    hs = []
    for step in x:
        h = (step @ w_ih.T + h @ w_hh + bias).tanh()
        hs.append(h)
    return torch.stack(hs)


def elman_states__from_zeros(x, h, w_ih, w_hh, bias):
    """your answer[0, 0, 0] is"""
    hs = []
    h = torch.zeros_like(h)
    for step in x:
        h = (step @ w_ih.T + h @ w_hh.T + bias).tanh()
        hs.append(h)
    return torch.stack(hs)


def elman_states__only_the_last(x, h, w_ih, w_hh, bias):
    """your answer has shape (3, 5), wanted (2, 3, 5)"""
    for step in x:
        h = (step @ w_ih.T + h @ w_hh.T + bias).tanh()
    return h


def gru_step__reset_before_the_product(x, h, w_ih, w_hh, b_ih, b_hh):
    """your answer[0, 0] is"""
    x_r, x_z, x_n = (x @ w_ih.T + b_ih).chunk(3, dim=1)
    h_r, h_z, _ = (h @ w_hh.T + b_hh).chunk(3, dim=1)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    H = h.shape[1]
    n = (x_n + (r * h) @ w_hh[2 * H :].T + b_hh[2 * H :]).tanh()
    return (1 - z) * n + z * h


def gru_step__with_the_gate_reversed(x, h, w_ih, w_hh, b_ih, b_hh):
    """your answer[0, 0] is"""
    return gates(x, h, w_ih, w_hh, b_ih, b_hh, lambda r, z, n: z * n + (1 - z) * h)


def gru_step__with_another_order(x, h, w_ih, w_hh, b_ih, b_hh):
    """your answer[0, 0] is"""
    x_z, x_r, x_n = (x @ w_ih.T + b_ih).chunk(3, dim=1)
    h_z, h_r, h_n = (h @ w_hh.T + b_hh).chunk(3, dim=1)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    return (1 - z) * (x_n + r * h_n).tanh() + z * h


def gru_step__from_the_library(x, h, w_ih, w_hh, b_ih, b_hh):
    """your answer calls gru_cell()"""
    return torch.gru_cell(x, h, w_ih, w_hh, b_ih, b_hh)


def gru_step__by_a_layer(x, h, w_ih, w_hh, b_ih, b_hh):
    """your answer calls GRU(), which the exercise asks you not to do"""
    gru = nn.GRU(x.shape[1], h.shape[1], dtype=x.dtype).requires_grad_(False)
    for new, old in zip(gru.parameters(), (w_ih, w_hh, b_ih, b_hh)):
        new.copy_(old)
    return gru(x[None], h[None])[1][0]


def gru_step__in_place(x, h, w_ih, w_hh, b_ih, b_hh):
    """you change h in place"""
    return gates(
        x, h, w_ih, w_hh, b_ih, b_hh, lambda r, z, n: h.mul_(z).add_((1 - z) * n)
    )


def gates(x, h, w_ih, w_hh, b_ih, b_hh, mix):
    x_r, x_z, x_n = (x @ w_ih.T + b_ih).chunk(3, dim=1)
    h_r, h_z, h_n = (h @ w_hh.T + b_hh).chunk(3, dim=1)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    return mix(r, z, (x_n + r * h_n).tanh())


def last_states__after_the_padding(hs, lengths):
    """your answer[0, 0] is"""
    return hs[-1]


def last_states__squeezed(hs, lengths):
    """your answer has shape (), wanted (1, 1)"""
    index = (lengths - 1)[None, :, None].expand(1, *hs.shape[1:])
    return hs.gather(0, index).squeeze()


def last_states__of_all_pairs(hs, lengths):
    """your answer has shape (3, 3, 4), wanted (3, 4)"""
    return hs[lengths - 1]


def last_states__one_step_later(hs, lengths):
    """IndexError:"""
    return hs[lengths, torch.arange(len(lengths))]


def last_states__batch_first(hs, lengths):
    """IndexError:"""
    return hs[torch.arange(len(lengths)), lengths - 1]


def masked_loss__with_the_padding(y_pred, y, lengths):
    """your answer is"""
    return (y_pred - y).square().mean()


def masked_loss__divided_by_all_steps(y_pred, y, lengths):
    """your answer is"""
    mask = torch.arange(len(y))[:, None] < lengths
    return torch.where(mask[..., None], y_pred - y, 0).square().mean()


def masked_loss__mean_of_the_means(y_pred, y, lengths):
    """your answer is"""
    errors = (y_pred - y).square()
    means = [errors[:length, i].mean() for i, length in enumerate(lengths)]
    return torch.stack(means).mean()


def masked_loss__times_the_mask(y_pred, y, lengths):
    """with nan in the padding your answer is nan"""
    mask = torch.arange(len(y))[:, None] < lengths
    errors = (y_pred - y).square() * mask[..., None]
    return errors.sum() / (mask.sum() * y.shape[2])


def masked_loss__masked_too_late(y_pred, y, lengths):
    """with nan in the padding the gradient in y_pred[1, 1, 0] is nan, wanted 0"""
    mask = torch.arange(len(y))[:, None] < lengths
    errors = torch.where(mask[..., None], (y_pred - y).square(), 0)
    return errors.sum() / (mask.sum() * y.shape[2])


def masked_loss__without_a_graph(y_pred, y, lengths):
    """your answer has no gradient"""
    mask = torch.arange(len(y))[:, None] < lengths
    return (y_pred[mask] - y[mask]).square().mean().detach()


def causal_attention__not_causal(query, key, value):
    """your answer[0, 0, 0, 0] is"""
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    return scores.softmax(dim=-1) @ value


def causal_attention__normalized_after_softmax(query, key, value):
    """is nan, wanted"""
    scores = query @ key.mT / math.sqrt(query.shape[3])
    weights = scores.softmax(dim=3).tril()
    return weights / weights.sum(dim=3, keepdim=True) @ value


def causal_attention__filled_with_minus_100(query, key, value):
    """for query of shape (1, 1, 3, 4)"""
    scores = query @ key.mT / math.sqrt(query.shape[3])
    later = torch.ones(scores.shape[2:], dtype=torch.bool).triu(diagonal=1)
    return scores.masked_fill(later, -100).softmax(dim=3) @ value


def causal_attention__not_scaled(query, key, value):
    """your answer[0, 0, 1, 0] is"""
    scores = (query @ key.mT).masked_fill(above(query), -math.inf)
    return scores.softmax(dim=-1) @ value


def causal_attention__filled_with_zeros(query, key, value):
    """your answer[0, 0,"""
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    return scores.masked_fill(above(query), 0).softmax(dim=-1) @ value


def causal_attention__masked_after_softmax(query, key, value):
    """your answer[0, 0,"""
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    return scores.softmax(dim=-1).masked_fill(above(query), 0) @ value


def causal_attention__that_does_not_see_itself(query, key, value):
    """your answer[0, 0, 0, 0] is nan"""
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    scores = scores.masked_fill(above(query, diagonal=0), -math.inf)
    return scores.softmax(dim=-1) @ value


def causal_attention__from_the_library(query, key, value):
    """your answer calls scaled_dot_product_attention()"""
    return scaled_dot_product_attention(query, key, value, is_causal=True)


def above(query, diagonal=1):
    T = query.shape[-2]
    return torch.ones(T, T, dtype=torch.bool).triu(diagonal)


def attend_with_cache__is_causal(query, key, value, past_key, past_value):
    """your answer[0][0, 0, 0, 0] is"""
    key = torch.cat([past_key, key], dim=2)
    value = torch.cat([past_value, value], dim=2)
    mixed = scaled_dot_product_attention(query, key, value, is_causal=True)
    return mixed, key, value


def attend_with_cache__without_a_mask(query, key, value, past_key, past_value):
    """your answer[0][0, 0, 0, 0] is"""
    key = torch.cat([past_key, key], dim=2)
    value = torch.cat([past_value, value], dim=2)
    return scaled_dot_product_attention(query, key, value), key, value


def attend_with_cache__with_the_mask_inverted(query, key, value, past_key, past_value):
    """your answer[0][0, 0, 0, 0] is"""
    key = torch.cat([past_key, key], dim=2)
    value = torch.cat([past_value, value], dim=2)
    T, P = query.shape[2], past_key.shape[2]
    future = torch.ones(T, P + T, dtype=torch.bool).triu(diagonal=P + 1)
    mixed = scaled_dot_product_attention(query, key, value, attn_mask=future)
    return mixed, key, value


def attend_with_cache__that_does_not_grow(query, key, value, past_key, past_value):
    """your answer[1] has shape (2, 3, 4, 5), wanted (2, 3, 11, 5)"""
    mixed, _, _ = attend_with_cache(query, key, value, past_key, past_value)
    return mixed, key, value


def attend_with_cache__one_at_a_time(query, key, value, past_key, past_value):
    """Error:"""
    keys = torch.cat([past_key, key], dim=2)
    values = torch.cat([past_value, value], dim=2)
    return scaled_dot_product_attention(query[:, :, 0], keys, values), keys, values


def detect_changes__as_it_was(x, y):
    """the loss ends at"""
    return train(nn.RNN(1, 16), x, y, lr=2e-2)


def detect_changes__with_a_larger_lr(x, y):
    """the loss ends at"""
    return train(nn.RNN(1, 16), x, y, lr=1e-1)


def detect_changes__with_another_cell(x, y):
    """the loss ends at"""
    return train(nn.GRU(1, 32), x, y, lr=2e-2)


def detect_changes__by_tensors(x, y):
    """wanted a number"""
    return [torch.tensor(0.69), *[torch.tensor(0.01)] * 99]


def train(rnn, x, y, lr):
    linear = nn.Linear(rnn.hidden_size, 1)
    optimizer = torch.optim.Adam([*rnn.parameters(), *linear.parameters()], lr=lr)
    losses = []
    for t in range(100):
        hs, _ = rnn(x)
        loss = nn.BCEWithLogitsLoss()(linear(hs)[:, 1:], y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses
