"""All cells: the step of every recurrence, forward and backward, for the loop of time (recurrent) and as modules.

rnn_cell      h = tanh(a) or max(a, 0)
gru_cell      gates r and z, with the reset gate after the product or before it
lstm_cell     gates i, f, o and a cell c; peepholes, coupled gates, projection
minimal       minGRU and minLSTM: gates that see the input alone
"""

from twofold.time.gru_cell import AFTER, BEFORE, GRUCell
from twofold.time.lstm_cell import COUPLED, LSTM, LSTMCell, Weights, lstm_step
from twofold.time.minimal import MIN_GRU, MIN_LSTM
from twofold.time.recurrent import Cell
from twofold.time.rnn_cell import RELU, TANH, RNNCell

CELLS: dict[str, Cell] = {
    "rnn_tanh": TANH,
    "rnn_relu": RELU,
    "gru": AFTER,
    "gru_reset_before": BEFORE,
    "lstm": LSTM,
    "lstm_coupled": COUPLED,
    "min_gru": MIN_GRU,
    "min_lstm": MIN_LSTM,
}

__all__ = [
    "AFTER",
    "BEFORE",
    "CELLS",
    "COUPLED",
    "LSTM",
    "MIN_GRU",
    "MIN_LSTM",
    "RELU",
    "TANH",
    "Cell",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Weights",
    "lstm_step",
]
