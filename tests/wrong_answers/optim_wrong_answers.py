"""Wrong answers to optim/optim_exercises.py, each with words that the verdict has.

A name ends in two underscores and what is wrong.
"""

import math

import torch
from optim_solutions import Training
from torch import nn


def gradient_step__recorded_by_autograd(parameters, lr):
    """a leaf Variable that requires grad"""
    for parameter in parameters:
        parameter -= lr * parameter.grad


def gradient_step__with_autograd_left_off(parameters, lr):
    """autograd still records nothing"""
    torch.set_grad_enabled(False)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter -= lr * parameter.grad


def gradient_step__of_other_tensors(parameters, lr):
    """after the step parameters[0][0] is"""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter = parameter - lr * parameter.grad


def gradient_step__upwards(parameters, lr):
    """after the step parameters[0][0] is"""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.data += lr * parameter.grad


def gradient_step__that_clears_the_gradients(parameters, lr):
    """parameters[0].grad is None, which it was not before"""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.data -= lr * parameter.grad
            parameter.grad = None


def gradient_step__of_all(parameters, lr):
    """'float' and 'NoneType'"""
    with torch.no_grad():
        for parameter in parameters:
            parameter -= lr * parameter.grad


def momentum_steps__with_an_average(w, gradients, lr, momentum):
    """your answer[0] is"""
    v = torch.zeros_like(w)
    for gradient in gradients:
        v = momentum * v + (1 - momentum) * gradient
        w = w - lr * v
    return w


def momentum_steps__of_nesterov(w, gradients, lr, momentum):
    """your answer[0] is"""
    v = torch.zeros_like(w)
    for gradient in gradients:
        v = momentum * v + gradient
        w = w - lr * (gradient + momentum * v)
    return w


def momentum_steps__in_place(w, gradients, lr, momentum):
    """you change w in place"""
    v = torch.zeros_like(w)
    for gradient in gradients:
        v = momentum * v + gradient
        w -= lr * v
    return w


def momentum_steps__that_move_first(w, gradients, lr, momentum):
    """your answer[0] is"""
    v = torch.zeros_like(w)
    for gradient in gradients:
        w = w - lr * v
        v = momentum * v + gradient
    return w


def momentum_steps__in_float32(w, gradients, lr, momentum):
    """has dtype torch.float32, wanted torch.float64"""
    w, v = w.float(), torch.zeros(w.shape)
    for gradient in gradients.float():
        v = momentum * v + gradient
        w = w - lr * v
    return w


def learning_rate__that_is_zero_at_first(t, peak, lowest, warmup, steps):
    """for t = 0, peak = 8.0, lowest = 2.0, warmup = 4, steps = 8 your answer is 0"""
    if t < warmup:
        return peak * t / warmup
    progress = min(1, (t - warmup) / (steps - warmup))
    return lowest + (peak - lowest) * (1 + math.cos(math.pi * progress)) / 2


def learning_rate__that_rises_again(t, peak, lowest, warmup, steps):
    """for t = 9"""
    if t < warmup:
        return peak * (t + 1) / warmup
    progress = (t - warmup) / (steps - warmup)
    return lowest + (peak - lowest) * (1 + math.cos(math.pi * progress)) / 2


def learning_rate__that_falls_during_the_warmup(t, peak, lowest, warmup, steps):
    """for t = 4"""
    if t < warmup:
        return peak * (t + 1) / warmup
    progress = min(1, t / steps)
    return lowest + (peak - lowest) * (1 + math.cos(math.pi * progress)) / 2


def learning_rate__above_the_peak(t, peak, lowest, warmup, steps):
    """is 10, wanted 8"""
    if t < warmup:
        return peak * (t + 1) / warmup
    progress = min(1, (t - warmup) / (steps - warmup))
    return lowest + peak * (1 + math.cos(math.pi * progress)) / 2


def parameter_groups__by_name(model, weight_decay):
    """for a model with LayerNorm groups[0] has 0.weight 1.weight 2.weight, wanted"""
    params = dict(model.named_parameters())
    biases = [param for name, param in params.items() if "bias" in name]
    weights = [param for name, param in params.items() if "bias" not in name]
    return [
        {"params": weights, "weight_decay": weight_decay},
        {"params": biases, "weight_decay": 0},
    ]


def parameter_groups__by_one_dimension(model, weight_decay):
    """for a model with a parameter of shape () groups[0] has 0.weight scale"""
    params = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in params if p.ndim != 1], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim == 1], "weight_decay": 0},
    ]


def parameter_groups__of_linear_layers_alone(model, weight_decay):
    """for a model with Conv2d groups[0] has nothing, wanted 0.weight"""
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    others = [p for p in model.parameters() if all(p is not w for w in weights)]
    return [
        {"params": weights, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0},
    ]


def parameter_groups__with_the_frozen(model, weight_decay):
    """for a model with a frozen layer groups[0] has 0.weight 1.weight, wanted"""
    return [
        {
            "params": [param for param in model.parameters() if param.ndim >= 2],
            "weight_decay": weight_decay,
        },
        {
            "params": [param for param in model.parameters() if param.ndim < 2],
            "weight_decay": 0,
        },
    ]


def parameter_groups__with_a_default(model, weight_decay):
    """the weight_decay of your groups is [0.1, None], wanted [0.1, 0]"""
    params = [param for param in model.parameters() if param.requires_grad]
    matrices = [param for param in params if param.ndim >= 2]
    others = [param for param in params if param.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others}]


def clip_gradients__one_by_one(parameters, max_norm):
    """your answer is"""
    for param in parameters:
        if param.grad is not None:
            norm = param.grad.norm()
            if norm > max_norm:
                param.grad *= max_norm / norm
    return norm


def clip_gradients__by_value(parameters, max_norm):
    """parameters[0].grad[0] is"""
    gradients = [param.grad for param in parameters if param.grad is not None]
    norm = sum(gradient.square().sum() for gradient in gradients).sqrt()
    for gradient in gradients:
        gradient.clamp_(-max_norm, max_norm)
    return norm


def clip_gradients__that_lengthens_them(parameters, max_norm):
    """parameters[0].grad[0] is"""
    gradients = [param.grad for param in parameters if param.grad is not None]
    norm = sum(gradient.square().sum() for gradient in gradients).sqrt()
    for gradient in gradients:
        gradient *= max_norm / (norm + 1e-6)
    return norm


def clip_gradients__of_other_tensors(parameters, max_norm):
    """parameters[0].grad[0] is"""
    gradients = [param.grad for param in parameters if param.grad is not None]
    norm = sum(gradient.square().sum() for gradient in gradients).sqrt()
    for gradient in gradients:
        gradient = gradient * min(1, max_norm / norm)
    return norm


def clip_gradients__and_measures_afterwards(parameters, max_norm):
    """your answer is"""
    nn.utils.clip_grads_with_norm_(parameters, max_norm, norm_of(parameters))
    return norm_of(parameters)


def norm_of(parameters):
    gradients = [param.grad for param in parameters if param.grad is not None]
    return sum(gradient.square().sum() for gradient in gradients).sqrt()


class Adam:
    """What the wrong ones have in common, each of which changes one line of it."""

    def __init__(self, params, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        self.params = params
        self.lr, self.betas, self.eps, self.decay = lr, betas, eps, weight_decay
        self.t = 0
        self.m = [torch.zeros_like(param) for param in params]
        self.v = [torch.zeros_like(param) for param in params]

    @torch.no_grad()
    def step(self):
        self.t += 1
        for i, param in enumerate(self.params):
            if param.grad is not None:
                grad = self.gradient(param)
                self.m[i] = self.average(self.m[i], grad, self.betas[0])
                self.v[i] = self.average(self.v[i], grad.square(), self.betas[1])
                m = self.corrected(self.m[i], self.betas[0])
                v = self.corrected(self.v[i], self.betas[1])
                self.shrink(param)
                param -= self.lr * self.divided(m, v)

    def gradient(self, param):
        return param.grad

    def average(self, old, new, beta):
        return beta * old + (1 - beta) * new

    def corrected(self, average, beta):
        return average / (1 - beta**self.t)

    def shrink(self, param):
        param *= 1 - self.lr * self.decay

    def divided(self, m, v):
        return m / (v.sqrt() + self.eps)


class AdamW__without_bias_correction(Adam):
    """with lr=0.1, weight_decay=0 after step 1 params[0][0] is"""

    def corrected(self, average, beta):
        return average


class AdamW__with_coupled_decay(Adam):
    """with lr=0.1 after step 1 params[0][0] is"""

    def gradient(self, param):
        return param.grad + self.decay * param

    def shrink(self, param):
        pass


class AdamW__with_decay_apart_from_the_rate(Adam):
    """with lr=0.1 after step 1 params[0][0] is"""

    def shrink(self, param):
        param *= 1 - self.decay


class AdamW__with_eps_under_the_root(Adam):
    """betas=(0.5, 0.8), eps=0.1, weight_decay=0.3 after step 1 params[0]"""

    def divided(self, m, v):
        return m / (v + self.eps).sqrt()


class AdamW__that_counts_parameters(Adam):
    """after step 1 params[2][0] is"""

    def gradient(self, param):
        self.t += param is not self.params[0]
        return param.grad


def step_in_parts__with_a_mean_of_means(model, loss_fn, optimizer, parts):
    """for parts of [4, 1, 2] rows your answer is"""
    total = 0
    optimizer.zero_grad()
    for x, y in parts:
        loss = loss_fn(model(x), y) / len(parts)
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def step_in_parts__of_the_last_part(model, loss_fn, optimizer, parts):
    """for parts of [2, 2] rows after the step 0.weight[0, 0] is"""
    rows = sum(len(x) for x, y in parts)
    total = 0
    for x, y in parts:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y) * len(x) / rows
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def step_in_parts__with_a_step_each(model, loss_fn, optimizer, parts):
    """the number of steps of the optimizer is 2, wanted 1"""
    total = 0
    for x, y in parts:
        loss = loss_fn(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(x)
    return total / sum(len(x) for x, y in parts)


def step_in_parts__with_one_backward(model, loss_fn, optimizer, parts):
    """the model sees another part before backward() of the last one"""
    sums = [loss_fn(model(x), y) * len(x) for x, y in parts]
    loss = sum(sums) / sum(len(x) for x, y in parts)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def step_in_parts__put_together(model, loss_fn, optimizer, parts):
    """the model sees 4 rows at once, wanted 2"""
    xs, ys = zip(*parts)
    loss = loss_fn(model(torch.cat(xs)), torch.cat(ys))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def step_in_parts__on_top_of_old_gradients(model, loss_fn, optimizer, parts):
    """for parts of [3] rows after the step 0.weight[0, 0] is"""
    rows = sum(len(x) for x, y in parts)
    total = 0
    for x, y in parts:
        loss = loss_fn(model(x), y) * len(x) / rows
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


class Resumed(Training):
    """Saves and restores all of a training but what is in missing."""

    missing = ()

    def state_dict(self):
        state = {"steps": self.steps, "generator": torch.get_rng_state()}
        for name in "model", "optimizer", "scheduler":
            state[name] = getattr(self, name).state_dict()
        return state

    def load_state_dict(self, state):
        for name in "model", "optimizer", "scheduler":
            if name not in self.missing:
                getattr(self, name).load_state_dict(state[name])
        if "steps" not in self.missing:
            self.steps = state["steps"]
        if "generator" not in self.missing:
            torch.set_rng_state(state["generator"])


class Training__without_the_optimizer(Resumed):
    """after resuming the loss of step 8 is"""

    missing = ("optimizer",)


class Training__without_the_scheduler(Resumed):
    """after resuming the loss of step 9 is"""

    missing = ("scheduler",)


class Training__without_the_generator(Resumed):
    """after resuming the loss of step 7 is"""

    missing = ("generator",)


class Training__without_the_steps(Resumed):
    """the number of losses from step 7 to 12, after resuming, is 10, wanted 6"""

    missing = ("steps",)


class Training__that_saves_whole_objects(Resumed):
    """torch.load() with weights_only=True refuses the state"""

    def state_dict(self):
        return {"model": self.model, "steps": self.steps}


class Training__with_a_seed(Resumed):
    """when state_dict() is called after step 6 the loss of step 7 is"""

    def state_dict(self):
        torch.manual_seed(0)
        return super().state_dict()

    def load_state_dict(self, state):
        super().load_state_dict(state)
        torch.manual_seed(0)


def fit_plane__as_it_was(x, y):
    """the loss ends at"""
    return fit(x, y, torch.optim.SGD)


def fit_plane__with_adam(x, y):
    """the loss ends at"""
    return fit(x, y, torch.optim.Adam)


def fit_plane__without_the_schedule(x, y):
    """the learning rate in epoch 11 is 0.02, wanted 0.002"""
    return fit(x, y, torch.optim.SGD, step_size=10_000)


def fit_plane__with_a_rate_that_hides_the_bug(x, y):
    """the learning rate in epoch 1 is 0.2, wanted 0.02"""
    return fit(x, y, sgd)


def fit_plane__by_tensors(x, y):
    """the type of a loss is"""
    return [torch.tensor(loss) for loss in fit(x, y, torch.optim.SGD)]


def sgd(params, lr):
    return torch.optim.SGD(params, lr=0.2)


def fit(x, y, make_optimizer, step_size=10):
    model = nn.Linear(x.shape[1], 1)
    optimizer = make_optimizer(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size, gamma=0.1)
    losses = []
    for epoch in range(40):
        total = 0
        for rows in torch.randperm(len(x)).split(4):
            loss = nn.functional.mse_loss(model(x[rows]), y[rows])
            total += loss.item() * len(rows)

            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        losses.append(total / len(x))
    return losses
