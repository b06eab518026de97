"""USB-serial miners: recognised from what they print, adopted by an operator, watched wherever they are plugged in."""
