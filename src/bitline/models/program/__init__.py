"""Programs of torch.export, read as data: a graph in JSON, weights as bytes; nothing is unpickled or compiled."""

from bitline.models.program.network import Program, load_program

__all__ = ["Program", "load_program"]
