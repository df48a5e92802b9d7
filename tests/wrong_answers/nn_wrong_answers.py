"""Wrong answers to nn/nn_exercises.py, each with words that the verdict has.

A name ends in two underscores and what is wrong.
"""

import math

import torch
from torch import nn


def count_parameters__that_are_tensors(model):
    """for nn.Linear(3, 2) your answer is 2, wanted 8"""
    return len(list(model.parameters()))


def count_parameters__with_frozen_ones(model):
    """for a model with a frozen layer your answer is 26, wanted 6"""
    return sum(param.numel() for param in model.parameters())


def count_parameters__with_buffers(model):
    """for a model with buffers your answer is 21, wanted 10"""
    return sum(tensor.numel() for tensor in model.state_dict().values())


def count_parameters__with_shared_ones_twice(model):
    """for a model with the same layer twice your answer is 40, wanted 20"""
    params = dict(model.named_parameters(remove_duplicate=False)).values()
    return sum(param.numel() for param in params if param.requires_grad)


class Layer(nn.Module):
    def __init__(self, n, m):
        super().__init__()
        self.weight = nn.Parameter((torch.rand(m, n) * 2 - 1) / math.sqrt(n))
        self.bias = nn.Parameter((torch.rand(m) * 2 - 1) / math.sqrt(n))

    def forward(self, x):
        return x @ self.weight.T + self.bias


class Linear__with_the_weight_transposed(Layer):
    """weight has shape (3, 4), wanted (4, 3)"""

    def __init__(self, n, m):
        super().__init__(n, m)
        self.weight = nn.Parameter(self.weight.T.detach())

    def forward(self, x):
        return x @ self.weight + self.bias


class Linear__of_plain_tensors(nn.Module):
    """wanted a parameter weight, there is none"""

    def __init__(self, n, m):
        super().__init__()
        self.weight = torch.empty(m, n).uniform_(-1 / math.sqrt(n), 1 / math.sqrt(n))
        self.bias = torch.empty(m).uniform_(-1 / math.sqrt(n), 1 / math.sqrt(n))


class Linear__with_standard_normal_weights(Layer):
    """with in_features = 100, weight has an element of size"""

    def __init__(self, n, m):
        super().__init__(n, m)
        nn.init.normal_(self.weight)


class Linear__with_positive_weights(Layer):
    """weight has the mean 0.05, wanted about 0"""

    def __init__(self, n, m):
        super().__init__(n, m)
        nn.init.uniform_(self.weight, 0, 1 / math.sqrt(n))


class Linear__with_zero_biases(Layer):
    """bias has the mean square 0, wanted about 0.00333"""

    def __init__(self, n, m):
        super().__init__(n, m)
        nn.init.zeros_(self.bias)


class Linear__by_data(Layer):
    """the output requires no gradient"""

    def forward(self, x):
        return x.detach() @ self.weight.data.T + self.bias.data


class Linear__derived_from_the_library(nn.Linear):
    """derived from nn.Linear"""


class Net(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))


class ResidualNet__with_a_plain_list(nn.Module):
    """wanted a parameter layers.0.weight, there is none"""

    def __init__(self, width, depth):
        super().__init__()
        self.layers = [nn.Linear(width, width) for _ in range(depth)]


class ResidualNet__with_one_layer(nn.Module):
    """wanted a parameter layers.1.weight, there is layers.0.weight, layers.0.bias"""

    def __init__(self, width, depth):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width)] * depth)


class ResidualNet__in_place(Net):
    """you change x in place"""

    def forward(self, x):
        for layer in self.layers:
            x += layer(x).relu()
        return x


class ResidualNet__with_relu_around_the_sum(Net):
    """for x of shape (2, 3) your answer["""

    def forward(self, x):
        for layer in self.layers:
            x = (x + layer(x)).relu()
        return x


class ResidualNet__without_super(nn.Module):
    """AttributeError: cannot assign module before Module.__init__() call"""

    def __init__(self, width, depth):
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))


def cross_entropy__with_inf(logits, labels):
    """for logits of shape (5, 2), labels of shape (5,) your answer is nan"""
    p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    return -p[torch.arange(len(labels)), labels].log().mean()


def cross_entropy__with_log_of_softmax(logits, labels):
    """labels of shape (5,) your answer is inf, wanted 400.401"""
    p = logits.softmax(dim=1)
    return -p[torch.arange(len(labels)), labels].log().mean()


def cross_entropy__with_epsilon(logits, labels):
    """your answer is"""
    p = logits.softmax(dim=1) + 1e-9
    return -p[torch.arange(len(labels)), labels].log().mean()


def cross_entropy__of_all_pairs(logits, labels):
    """your answer is"""
    return -logits.log_softmax(dim=1)[:, labels].mean()


def cross_entropy__as_a_sum(logits, labels):
    """your answer is"""
    p = logits.log_softmax(dim=1)
    return -p[torch.arange(len(labels)), labels].sum()


def cross_entropy__from_the_library(logits, labels):
    """your answer calls cross_entropy()"""
    return nn.functional.cross_entropy(logits, labels)


def cross_entropy__detached(logits, labels):
    """your answer does not require a gradient"""
    p = logits.detach().log_softmax(dim=1)
    return -p[torch.arange(len(labels)), labels].mean()


def recorded(layers, kind, model, x, detach=True, remove=True):
    """Answer rightly, if the arguments are right; hooks are on layers of one kind."""
    outputs, hooks = [], []

    def record(layer, inputs, output):
        outputs.append(output.detach() if detach else output)

    for layer in layers:
        if isinstance(layer, kind):
            hooks.append(layer.register_forward_hook(record))
    model(x)
    for hook in hooks:
        if remove:
            hook.remove()
    return outputs


def record_outputs__and_leave_the_hooks(model, kind, x):
    """afterwards your hook is still there"""
    return recorded(model.modules(), kind, model, x, remove=False)


def record_outputs__and_clear_all_hooks(model, kind, x):
    """afterwards a hook that was there before is gone"""
    outputs = recorded(model.modules(), kind, model, x)
    for layer in model.modules():
        layer._forward_hooks.clear()
    return outputs


def record_outputs__of_the_outermost_layers(model, kind, x):
    """your answer has 0 outputs where there are 2 calls"""
    return recorded(model.children(), kind, model, x)


def record_outputs__with_a_graph(model, kind, x):
    """an output requires a gradient, wanted detached ones"""
    return recorded(model.modules(), kind, model, x, detach=False)


def record_outputs__without_finally(model, kind, x):
    """after an exception of the model your hook is still there"""
    return recorded(model.modules(), kind, model, x)


def record_outputs__in_evaluation_mode(model, kind, x):
    """afterwards the model is no longer in training mode"""
    return recorded(model.modules(), kind, model.eval(), x)


def record_outputs__below_the_model(model, kind, x):
    """your answer has 0 outputs where there are 1 calls"""
    return recorded(list(model.modules())[1:], kind, model, x)


def record_outputs__of_a_chain(model, kind, x):
    """your answer has 1 outputs where there are 2 calls"""
    outputs = []
    for layer in model.modules():
        if not isinstance(layer, nn.Sequential):
            x = layer(x).detach()
            if isinstance(layer, kind):
                outputs.append(x)
    return outputs


def initialized(model, variance):
    for layer in model:
        if isinstance(layer, nn.Linear):
            std = math.sqrt(variance(layer.in_features, layer.out_features))
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)


def initialize__as_xavier(model):
    """is multiplied by 0.18"""
    initialized(model, lambda n, m: 2 / (n + m))


def initialize__as_if_there_were_no_relu(model):
    """in layers 0 and 1, wanted about 1"""
    initialized(model, lambda n, m: 1 / n)


def initialize__by_the_outputs(model):
    """is multiplied by 0.2"""
    initialized(model, lambda n, m: 2 / m)


def initialize__with_the_variance_for_the_deviation(model):
    """is multiplied by 0.01"""
    initialized(model, lambda n, m: (2 / n) ** 2)


def initialize__without_biases(model):
    """the bias of layer 0 is not 0"""
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


class Norm(nn.Module):
    correction_of_batch, correction_of_average, new = 0, 1, 0.1

    def __init__(self, features):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def statistics(self, x):
        return x.mean(dim=0), x.var(dim=0, correction=self.correction_of_batch)

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = self.statistics(x)
            self.update(mean, x.var(dim=0, correction=self.correction_of_average))
        return (x - mean) / (var + 1e-5).sqrt() * self.weight + self.bias

    def update(self, mean, var):
        self.running_mean.lerp_(mean.detach(), self.new)
        self.running_var.lerp_(var.detach(), self.new)


class BatchNorm1d__with_correction(Norm):
    """in training mode, for x of shape (2, 3) your answer["""

    correction_of_batch = 1


class BatchNorm1d__without_correction(Norm):
    """after training mode, running_var["""

    correction_of_average = 0


class BatchNorm1d__that_keeps_a_tenth(Norm):
    """after training mode, running_mean["""

    new = 0.9


class BatchNorm1d__with_a_graph(Norm):
    """after training mode, running_mean requires a gradient"""

    def update(self, mean, var):
        self.running_mean = 0.9 * self.running_mean + 0.1 * mean
        self.running_var = 0.9 * self.running_var + 0.1 * var


class BatchNorm1d__with_a_detached_variance(Norm):
    """the gradient of x["""

    def statistics(self, x):
        mean, var = super().statistics(x)
        return mean, var.detach()


class BatchNorm1d__with_epsilon_outside_of_the_root(Norm):
    """your answer[0, 0] is"""

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = self.statistics(x)
            self.update(mean, x.var(dim=0))
        return (x - mean) / (var.sqrt() + 1e-5) * self.weight + self.bias


class BatchNorm1d__of_rows(Norm):
    """in training mode, for x of shape (2, 3) your answer["""

    def statistics(self, x):
        return x.mean(dim=1, keepdim=True), x.var(dim=1, keepdim=True, correction=0)

    def update(self, mean, var):
        pass


class BatchNorm1d__with_plain_averages(Norm):
    """wanted a buffer running_mean, there is none"""

    def __init__(self, features):
        super().__init__(features)
        del self.running_mean, self.running_var
        self.running_mean = torch.zeros(features)
        self.running_var = torch.ones(features)


class BatchNorm1d__that_never_evaluates(Norm):
    """in evaluation mode"""

    def forward(self, x):
        mean, var = self.statistics(x)
        if self.training:
            self.update(mean, x.var(dim=0))
        return (x - mean) / (var + 1e-5).sqrt() * self.weight + self.bias


class BatchNorm1d__from_the_library(Norm):
    """your answer calls batch_norm()"""

    def forward(self, x):
        averages = self.running_mean, self.running_var
        return nn.functional.batch_norm(
            x, *averages, self.weight, self.bias, self.training
        )


class LayerScale__as_it_was(nn.Module):
    """wanted a parameter scale, there is none"""

    def __init__(self, features):
        super().__init__()
        self.scale = 0.1 * nn.Parameter(torch.ones(features))

    def forward(self, x):
        return self.scale * x


class LayerScale__as_a_buffer(nn.Module):
    """wanted a parameter scale, there is none"""

    def __init__(self, features):
        super().__init__()
        self.register_buffer("scale", 0.1 * torch.ones(features))

    def forward(self, x):
        return self.scale * x


class LayerScale__that_starts_at_one(nn.Module):
    """at first, scale[0] is 1, wanted 0.1"""

    def __init__(self, features):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))

    def forward(self, x):
        return self.scale * x


class LayerScale__with_a_frozen_parameter(nn.Module):
    """the parameter scale requires no gradient"""

    def __init__(self, features):
        super().__init__()
        self.scale = nn.Parameter(0.1 * torch.ones(features), requires_grad=False)

    def forward(self, x):
        return self.scale * x


def trained(x, labels, learning_rate, last_layer, loss_fn):
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3), last_layer)
    losses = []
    for t in range(200):
        loss = loss_fn(model(x), labels)
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for param in model.parameters():
                param -= learning_rate * param.grad
    return losses


def train_classifier__as_it_was(x, labels):
    """the loss ends at 0.55"""
    return trained(x, labels, 0.1, nn.Softmax(dim=1), nn.CrossEntropyLoss())


def train_classifier__at_a_higher_rate(x, labels):
    """the loss ends at 0.55"""
    return trained(x, labels, 10, nn.Softmax(dim=1), nn.CrossEntropyLoss())


def train_classifier__with_the_negative_probability(x, labels):
    """the loss of step 1 is -0.3"""
    return trained(x, labels, 0.1, nn.Softmax(dim=1), nn.NLLLoss())


def train_classifier__with_a_sigmoid(x, labels):
    """the loss ends at"""
    return trained(x, labels, 0.1, nn.Sigmoid(), nn.CrossEntropyLoss())
