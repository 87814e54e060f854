"""A model for inference alone: each convolution, its batch norm and its activation become one operation.

The scores stay the same to about 1e-6. What cannot be folded stays as it is, so any backbone can be given.
"""

import copy
import operator

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .devices import has_bfloat16
from .modeling_metaqap import MetaQAPModel

#: Largest difference of activations, beside the largest of them, at which a folded backbone is taken.
_TOLERANCE = 1e-4

# Side of the crops that models are made for, in pixels.
_CROP_SIZE = 512

# What oneDNN can do in the same pass as a convolution, by its own names.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
    nn.Hardswish: ("hardswish", []),
    nn.Identity: ("none", []),
}


def fold_for_inference(model: MetaQAPModel) -> MetaQAPModel:
    """The model with folded backbones; it shares all else with the one given, which stays as it is.

    Args:
        model: in evaluation mode, on its device and in its number format.

    Returns:
        A model with the same outputs to about 1e-6 in float32. It cannot be trained, saved or exported.
    """
    folded = copy.copy(model)
    folded._modules = dict(model._modules)
    learners = []
    for learner in model.base_learners:
        twin = copy.copy(learner)
        twin._modules = dict(learner._modules)
        twin.backbone = _folded_backbone(learner.backbone)  # type: ignore[arg-type]
        learners.append(twin)
    folded.base_learners = nn.ModuleList(learners)
    return folded.eval()


def _folded_backbone(backbone: nn.Module) -> nn.Module:
    try:
        folded = _fold(backbone)
        _pack(folded, next(backbone.parameters()))
        same = _agree(backbone, folded)
    except Exception:  # whatever a backbone does that cannot be traced: it still computes as timm wrote it
        return backbone
    return folded if same else backbone


class _Tracer(fx.Tracer):
    """Goes into blocks, not into single layers."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, (nn.Conv2d, nn.BatchNorm2d)) or not any(module.children())


def _fold(backbone: nn.Module) -> nn.Module:
    graph = _Tracer().trace(backbone)
    modules: dict[str, nn.Module] = dict(backbone.named_modules())
    replaced: dict[str, nn.Module] = {}

    def only_user(node: fx.Node, types: tuple[type, ...]) -> fx.Node | None:
        """The layer that alone uses what a layer gives, if it is one of these types."""
        if len(node.users) != 1:
            return None
        user = next(iter(node.users))
        return user if user.op == "call_module" and type(modules[str(user.target)]) in types else None

    for node in list(graph.nodes):
        if node.op != "call_module" or type(modules[node.target]) not in (nn.Conv2d, Conv2dSame):
            continue
        norm, activation = None, None
        followers = []
        if (user := only_user(node, (nn.BatchNorm2d, BatchNormAct2d))) is not None:
            norm = modules[str(user.target)]
            followers.append(user)
        if isinstance(norm, BatchNormAct2d):
            if type(norm.drop) is not nn.Identity or type(norm.act) not in _ACTIVATIONS:
                continue
            activation = norm.act
        if activation is None or type(activation) is nn.Identity:
            user = only_user(followers[-1] if followers else node, tuple(_ACTIVATIONS))
            if user is not None:
                activation = modules[str(user.target)]
                followers.append(user)
        replaced[node.target] = _FoldedConv(modules[node.target], norm, activation)  # type: ignore[arg-type]
        for follower in followers:
            follower.replace_all_uses_with(node)
            graph.erase_node(follower)
    # In the order of the graph, and flat.
    root = nn.Module()
    for node in graph.nodes:
        if node.op == "call_module":
            name = node.target.replace(".", "_")
            root.add_module(name, replaced.get(node.target, modules[node.target]))
            node.target = name
        elif node.op == "get_attr":
            name = node.target.replace(".", "_")
            value = operator.attrgetter(node.target)(backbone)
            setattr(root, name, value) if isinstance(value, nn.Parameter) else root.register_buffer(name, value)
            node.target = name
    return fx.GraphModule(root, graph).eval()


@torch.no_grad()
def _pack(folded: nn.Module, like: Tensor) -> None:
    """Pack all weights for crops of `_CROP_SIZE` pixels.

    Args:
        folded: a backbone.
        like: a tensor of its device and number format.
    """
    side = 64  # tells the sizes of all inputs as well, and takes a few milliseconds
    sizes: dict[_FoldedConv, list[int]] = {}
    layers = [module for module in folded.modules() if isinstance(module, _FoldedConv)]
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: sizes.update({layer: list(inputs[0].shape)}))
        for layer in layers
    ]
    folded(torch.zeros(1, 3, side, side).to(like))
    for hook in hooks:
        hook.remove()
    for layer, (batch, channels, height, width) in sizes.items():
        layer.pack([batch, channels, height * _CROP_SIZE // side, width * _CROP_SIZE // side])


@torch.no_grad()
def _agree(backbone: nn.Module, folded: nn.Module) -> bool:
    """Whether both say the same of two small pictures of noise, one of odd sides."""
    parameter = next(backbone.parameters())
    generator = torch.Generator().manual_seed(0)
    exact = parameter.dtype == torch.float32
    for side in (64, 97):
        noise = torch.randn(1, 3, side, side, generator=generator).to(parameter)
        for one, other in zip(backbone(noise), folded(noise), strict=True):
            if one.shape != other.shape:
                return False
            difference = (one.float() - other.float()).abs().max().item()
            # Half precision rounds at other places; that is checked on whole scores.
            if exact and not difference <= _TOLERANCE * one.abs().max().item():
                return False
    return True


class _FoldedConv(nn.Module):
    """A convolution with the batch norm and the activation that follow it.

    TensorFlow's padding at stride 2 adds a row and a column more at the end than at the beginning. A kernel with a row
    and a column of zeros in front does the same with equal padding, and spares a copy of the input.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, activation: nn.Module | None):
        super().__init__()
        weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
        dtype = weight.dtype
        if norm is not None:
            weight, bias = (
                tensor.detach()
                for tensor in fuse_conv_bn_weights(
                    weight.float(),
                    None if bias is None else bias.float(),
                    norm.running_mean.float(),  # type: ignore[union-attr]
                    norm.running_var.float(),  # type: ignore[union-attr]
                    norm.eps,
                    norm.weight,
                    norm.bias,
                )
            )
        if bias is None:
            bias = torch.zeros(weight.shape[0], device=weight.device)
        self.stride, self.dilation, self.groups = list(conv.stride), list(conv.dilation), conv.groups
        self.padding = [0, 0] if isinstance(conv.padding, str) else list(conv.padding)
        self.same_stride_2 = False
        if isinstance(conv, Conv2dSame):
            if conv.dilation != (1, 1) or any(side % 2 == 0 for side in conv.kernel_size):
                raise ValueError("Only odd kernels without dilation have been worked out.")
            self.padding = [side // 2 for side in conv.kernel_size]
            if conv.stride == (2, 2):
                self.same_stride_2 = True
                weight = F.pad(weight, (1, 0, 1, 0))
            elif conv.stride != (1, 1):
                raise ValueError("Only strides 1 and 2 have been worked out.")
        elif isinstance(conv.padding, str) or conv.padding_mode != "zeros":
            raise ValueError("Padding by name has not been worked out.")
        weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        self.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
        self.activation = copy.deepcopy(activation)
        self.attribute, self.scalars = _ACTIVATIONS[type(activation)] if activation is not None else ("none", [])
        self.is_fused = _onednn_computes(weight)
        self.weight = weight

    def pack(self, size: list[int]) -> None:
        """Bring the weights, once, into the order that oneDNN wants for inputs of this size; others still work.

        Without a size oneDNN packs some weights (of 512 outputs, say) for an input that does not come, and brings them
        into another order with each picture, which takes longer than many layers together.
        """
        if self.is_fused:
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, self.padding, self.stride, self.dilation, self.groups, size
            )

    def forward(self, inputs: Tensor) -> Tensor:
        if self.same_stride_2:
            height, width = inputs.shape[-2:]
            if height % 2 or width % 2:
                inputs = F.pad(inputs, (width % 2, 0, height % 2, 0))
        if self.is_fused:
            return torch.ops.mkldnn._convolution_pointwise(
                inputs,
                self.weight,
                self.bias,
                self.padding,
                self.stride,
                self.dilation,
                self.groups,
                self.attribute,
                self.scalars,
                "",
            )
        outputs = F.conv2d(inputs, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return outputs if self.activation is None else self.activation(outputs)


def _onednn_computes(weight: Tensor) -> bool:
    """Whether PyTorch has oneDNN here, and oneDNN this number format in hardware."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return has_bfloat16(weight.device)
    return weight.dtype == torch.float32


__all__ = ["fold_for_inference"]
