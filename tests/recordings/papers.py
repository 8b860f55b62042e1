"""The papers' algorithms, transcribed letter by letter: `(x, gradients, lr, ...) -> the point after each step`.

`gradients` and `lr` hold one entry a step. Where a paper has no epsilon, 0/0 is taken as 0.
"""

import numpy as np


def over(a, b):
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


def momentum(x, gradients, lr, mu=0.0):
    """Polyak 1964 as in Sutskever et al. 2013, eqs. 1-2."""
    v, path = np.zeros_like(x), []
    for g, alpha in zip(gradients, lr, strict=True):
        v = mu * v - alpha * g
        x = x + v
        path.append(x)
    return np.array(path)


def nesterov(x, gradients, lr, mu):
    """Sutskever et al. 2013, eqs. 3-4: gradients are of x + mu v, which is the point that libraries keep."""
    v, path = np.zeros_like(x), []
    for g, alpha in zip(gradients, lr, strict=True):
        v = mu * v - alpha * g
        x = x + v
        path.append(x + mu * v)
    return np.array(path)


def adagrad(x, gradients, lr):
    """Duchi et al. 2011, with a diagonal matrix and delta = 0."""
    total, path = np.zeros_like(x), []
    for g, eta in zip(gradients, lr, strict=True):
        total = total + g * g
        x = x - over(eta * g, np.sqrt(total))
        path.append(x)
    return np.array(path)


def rmsprop(x, gradients, lr, decay=0.9):
    """Tieleman & Hinton 2012, Lecture 6.5."""
    mean_square, path = np.zeros_like(x), []
    for g, eta in zip(gradients, lr, strict=True):
        mean_square = decay * mean_square + (1 - decay) * g * g
        x = x - over(eta * g, np.sqrt(mean_square))
        path.append(x)
    return np.array(path)


def graves(x, gradients, lr, aleph=0.95, beth=0.9, daleth=1e-4):
    """Graves 2013, arXiv:1308.0850, eqs. 38-41."""
    n, mean, delta = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    path = []
    for e, gimel in zip(gradients, lr, strict=True):
        n = aleph * n + (1 - aleph) * e**2
        mean = aleph * mean + (1 - aleph) * e
        delta = beth * delta - gimel * e / np.sqrt(n - mean**2 + daleth)
        x = x + delta
        path.append(x)
    return np.array(path)


def adadelta(x, gradients, lr, rho=0.95, eps=1e-6):
    """Zeiler 2012, Algorithm 1; the paper has no learning rate, which is a rate of 1."""
    square, moved, path = np.zeros_like(x), np.zeros_like(x), []
    for g, rate in zip(gradients, lr, strict=True):
        square = rho * square + (1 - rho) * g**2
        delta = -np.sqrt(moved + eps) / np.sqrt(square + eps) * g
        moved = rho * moved + (1 - rho) * delta**2
        x = x + rate * delta
        path.append(x)
    return np.array(path)


def adam(x, gradients, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """Kingma & Ba 2015, Algorithm 1."""
    m, v, path = np.zeros_like(x), np.zeros_like(x), []
    for t, (g, alpha) in enumerate(zip(gradients, lr, strict=True), start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        x = x - alpha * m_hat / (np.sqrt(v_hat) + eps)
        path.append(x)
    return np.array(path)


def amsgrad(x, gradients, lr, beta1=0.9, beta2=0.999):
    """Reddi et al. 2018, Algorithm 2: nothing is corrected, and there is no epsilon."""
    m, v, v_hat, path = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x), []
    for g, alpha in zip(gradients, lr, strict=True):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        v_hat = np.maximum(v_hat, v)
        x = x - over(alpha * m, np.sqrt(v_hat))
        path.append(x)
    return np.array(path)


def adamw(x, gradients, lr, weight_decay, beta1=0.9, beta2=0.999, eps=1e-8):
    """Loshchilov & Hutter 2019, Algorithm 2: alpha is the first rate, eta the schedule's factor on it."""
    m, v, alpha, path = np.zeros_like(x), np.zeros_like(x), lr[0], []
    for t, (g, rate) in enumerate(zip(gradients, lr, strict=True), start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        eta = rate / alpha
        x = x - eta * (alpha * m_hat / (np.sqrt(v_hat) + eps) + weight_decay * x)
        path.append(x)
    return np.array(path)


def adamax(x, gradients, lr, beta1=0.9, beta2=0.999):
    """Kingma & Ba 2015, Algorithm 2: there is no epsilon."""
    m, u, path = np.zeros_like(x), np.zeros_like(x), []
    for t, (g, alpha) in enumerate(zip(gradients, lr, strict=True), start=1):
        m = beta1 * m + (1 - beta1) * g
        u = np.maximum(beta2 * u, np.abs(g))
        x = x - over(alpha / (1 - beta1**t) * m, u)
        path.append(x)
    return np.array(path)


def nadam(x, gradients, lr, mu=0.9, nu=0.999, eps=1e-8):
    """Dozat 2016, Algorithm 2, with the schedule that Keras and torch took from his report of 2015: mu_t is also in the
    mean, and nu on the corrected second moment (which the report has not).
    """
    m, n, path = np.zeros_like(x), np.zeros_like(x), []
    mus = [mu * (1 - 0.5 * 0.96 ** (t / 250)) for t in range(1, len(gradients) + 2)]
    for t, (g, alpha) in enumerate(zip(gradients, lr, strict=True), start=1):
        now, then = mus[t - 1], mus[t]
        m = now * m + (1 - now) * g
        n = nu * n + (1 - nu) * g**2
        m_hat = then * m / (1 - np.prod(mus[: t + 1])) + (1 - now) * g / (1 - np.prod(mus[:t]))
        n_hat = nu * n / (1 - nu**t)
        x = x - alpha / (np.sqrt(n_hat) + eps) * m_hat
        path.append(x)
    return np.array(path)


def radam(x, gradients, lr, beta1=0.9, beta2=0.999):
    """Liu et al. 2020, Algorithm 2: rectified once rho > 4, and without epsilon."""
    m, v, path = np.zeros_like(x), np.zeros_like(x), []
    rho_inf = 2 / (1 - beta2) - 1
    for t, (g, alpha) in enumerate(zip(gradients, lr, strict=True), start=1):
        v = beta2 * v + (1 - beta2) * g**2
        m = beta1 * m + (1 - beta1) * g
        m_hat = m / (1 - beta1**t)
        rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
        if rho > 4:
            r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            x = x - alpha * r * over(m_hat * np.sqrt(1 - beta2**t), np.sqrt(v))
        else:
            x = x - alpha * m_hat
        path.append(x)
    return np.array(path)
