"""Loggers: searches watched in TensorBoard or Weights & Biases."""

from oracle.loggers.base import Logger, Loggers
from oracle.loggers.tensorboard import TensorBoardLogger
from oracle.loggers.wandb import WandbLogger

__all__ = ["Logger", "Loggers", "TensorBoardLogger", "WandbLogger"]
