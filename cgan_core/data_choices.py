"""What may be asked of data, by name; without the libraries that it takes to load them."""

from typing import Literal

DataName = Literal["mnist", "lfwcrop", "lfw_people"]
ConditionChoice = Literal["given", "masked_image"]
MaskName = Literal["left_half", "right_half", "top_half", "bottom_half", "centre"]
MaskBox = tuple[int, int, int, int]  # top, left, height, width
