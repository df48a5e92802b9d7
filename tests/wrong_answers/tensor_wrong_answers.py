"""Wrong answers to tensor/tensor_exercises.py, each with words that the verdict has.

A name ends in two underscores and what is wrong.
"""

import torch


def outer_product__of_equal_sizes(x, y):
    """The size of tensor a (2) must match the size of tensor b (3)"""
    return x * y


def outer_product__transposed(x, y):
    """has shape (3, 2), wanted (2, 3)"""
    return y[:, None] * x


def outer_product__with_a_loop(x, y):
    """there is a loop"""
    return torch.stack([element * y for element in x])


def outer_product__with_map(x, y):
    """there is a loop"""
    return torch.stack(list(map(y.mul, x)))


def row_means__of_the_columns(x):
    """for x of shape (2, 3) your answer has shape (3,), wanted (2,)"""
    return x.mean(dim=0)


def row_means__as_a_column(x):
    """has shape (2, 1), wanted (2,)"""
    return x.mean(dim=1, keepdim=True)


def row_means__as_sums(x):
    """your answer[0] is"""
    return x.sum(dim=1)


def row_means__in_float32(x):
    """has dtype torch.float32, wanted torch.float64"""
    return x.float().mean(dim=1)


def row_means__not_returned(x):
    """is None: is there a return missing?"""
    x.mean(dim=1)


def row_means__in_place(x):
    """you change x in place"""
    return x.div_(x.shape[1]).sum(dim=1)


def one_hot__of_booleans(labels, classes):
    """has dtype torch.bool, wanted torch.float32"""
    return labels[:, None] == torch.arange(classes)


def one_hot__as_wide_as_the_highest_label(labels, classes):
    """has shape (1, 2), wanted (1, 4)"""
    return (labels[:, None] == torch.arange(labels.max() + 1)).float()


def one_hot__from_the_library(labels, classes):
    """calls one_hot()"""
    return torch.nn.functional.one_hot(labels, classes).float()


@torch.no_grad()
def one_hot__from_the_library_in_disguise(labels, classes):
    """calls one_hot()"""
    return torch.nn.functional.one_hot(labels, classes).float()


def standardize__with_nan(x):
    """is nan, wanted 0"""
    return (x - x.mean(dim=0)) / x.std(dim=0, correction=0)


def standardize__with_correction(x):
    """your answer[0, 0] is"""
    deviations = x.std(dim=0)
    return (x - x.mean(dim=0)) / torch.where(deviations == 0, 1, deviations)


def standardize__in_place(x):
    """you change x in place"""
    x -= x.mean(dim=0)
    deviations = x.std(dim=0, correction=0)
    return x / torch.where(deviations == 0, 1, deviations)


def standardize__with_epsilon(x):
    """your answer[0, 0] is"""
    return (x - x.mean(dim=0)) / (x.std(dim=0, correction=0) + 1e-3)


def sliding_windows__copied(x, size):
    """a copy of the elements"""
    return x.unfold(0, size, 1).clone()


def sliding_windows__that_do_not_overlap(x, size):
    """has shape (2, 2), wanted (4, 2)"""
    return x.unfold(0, size, size)


def sliding_windows__of_the_storage(x, size):
    """that is not contiguous"""
    return x.as_strided((len(x) - size + 1, size), (1, 1))


def bilinear_scores__transposed(x, weight, y):
    """has shape (5, 2), wanted (2, 5)"""
    return torch.einsum("nd,de,me->mn", x, weight, y)


def bilinear_scores__with_the_transposed_weight(x, weight, y):
    """Error:"""
    return torch.einsum("nd,ed,me->nm", x, weight, y)


def squared_distances__with_a_root(x, y):
    """your answer[0, 0] is"""
    return (x[:, None] - y).square().sum(dim=2).sqrt()


def squared_distances__transposed(x, y):
    """has shape (4, 2), wanted (2, 4)"""
    return (y[:, None] - x).square().sum(dim=2)


def squared_distances__of_the_sums(x, y):
    """your answer[0, 0] is"""
    return (x[:, None] - y).sum(dim=2).square()


def confusion_matrix__counted_once(targets, predictions, classes):
    """your answer["""
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    counts[targets, predictions] += 1
    return counts


def confusion_matrix__transposed(targets, predictions, classes):
    """your answer["""
    pairs = predictions * classes + targets
    return pairs.bincount(minlength=classes * classes).reshape(classes, classes)


def confusion_matrix__of_floats(targets, predictions, classes):
    """has dtype torch.float32, wanted torch.int64"""
    pairs = targets * classes + predictions
    counts = pairs.bincount(minlength=classes * classes)
    return counts.reshape(classes, classes).float()


def two_layer_net__without_the_mask(x, y, w1, w2, steps):
    """the loss of step 50 is"""
    return fit(x, y, w1, w2, steps, lambda h: 1)


def two_layer_net__with_the_relu_again(x, y, w1, w2, steps):
    """the loss of step 50 is"""
    return fit(x, y, w1, w2, steps, lambda h: h.clamp(min=0))


def fit(x, y, w1, w2, steps, mask):
    w1, w2 = w1.clone(), w2.clone()
    losses = []
    for t in range(steps):
        h = x @ w1
        h_relu = h.clamp(min=0)
        y_pred = h_relu @ w2
        losses.append((y_pred - y).square().sum().item())

        grad_y_pred = 2 * (y_pred - y)
        grad_h = grad_y_pred @ w2.T * mask(h)
        w1 -= 1e-6 * x.T @ grad_h
        w2 -= 1e-6 * h_relu.T @ grad_y_pred
    return losses


def fit_line__as_it_was(x, y):
    """the loss ends at"""
    weight, bias = torch.zeros(1, 1), torch.zeros(1)
    losses = []
    for t in range(200):
        error = x @ weight + bias - y
        losses.append(error.square().mean().item())
        grad_y_pred = 2 * error / error.numel()
        weight -= 0.1 * x.T @ grad_y_pred.sum(dim=1, keepdim=True)
        bias -= 0.1 * grad_y_pred.sum()
    return losses


def fit_line__by_tensors(x, y):
    """wanted a number"""
    return [torch.tensor(4.75)] * 200
