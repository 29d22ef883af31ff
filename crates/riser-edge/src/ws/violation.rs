//! The ways in which a client can break the protocol, and what each is answered with.

/// What a client did that RFC 6455 or a limit forbids. It ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A reserved bit is set, although no extension was negotiated.
    #[error("a reserved bit is set")]
    ReservedBits,
    /// An opcode that means nothing.
    #[error("the opcode is reserved")]
    ReservedOpcode,
    /// A client's frame without a mask.
    #[error("the frame is not masked")]
    Unmasked,
    /// A control frame that is not final.
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// A control frame of more than 125 bytes.
    #[error("a control frame is over 125 bytes")]
    LongControl,
    /// A length that a shorter field could have held.
    #[error("the length is not in its shortest form")]
    LengthNotMinimal,
    /// A length with its top bit set.
    #[error("the length has its top bit set")]
    LengthTopBit,
    /// A continuation without a message to continue.
    #[error("a continuation without a start")]
    StrayContinuation,
    /// A new message before the last one's final fragment.
    #[error("a message begins inside another")]
    InterruptedMessage,
    /// A close frame whose payload is one byte.
    #[error("a close frame has half a code")]
    CloseTruncated,
    /// A close code that must not be sent.
    #[error("the close code must not be sent")]
    CloseCode,
    /// A close reason that is not UTF-8.
    #[error("the close reason is not UTF-8")]
    CloseReasonUtf8,
    /// A text message that is not UTF-8.
    #[error("the text is not UTF-8")]
    TextUtf8,
    /// A text message over [`Limits::text_bytes`].
    #[error("the text message is over its limit")]
    TextTooLarge,
    /// A binary message over [`Limits::binary_bytes`].
    #[error("the binary message is over its limit")]
    BinaryTooLarge,
}

impl Violation {
    /// The close code that answers it.
    pub fn code(self) -> u16 {
        match self {
            Self::CloseReasonUtf8 | Self::TextUtf8 => 1007,
            Self::TextTooLarge | Self::BinaryTooLarge => 1009,
            _ => 1002,
        }
    }

    /// A short name from a closed set, fit for a metric's label and for a close frame's reason.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved_bits",
            Self::ReservedOpcode => "reserved_opcode",
            Self::Unmasked => "unmasked",
            Self::FragmentedControl => "fragmented_control",
            Self::LongControl => "long_control",
            Self::LengthNotMinimal => "length_not_minimal",
            Self::LengthTopBit => "length_top_bit",
            Self::StrayContinuation => "stray_continuation",
            Self::InterruptedMessage => "interrupted_message",
            Self::CloseTruncated => "close_truncated",
            Self::CloseCode => "close_code",
            Self::CloseReasonUtf8 => "close_reason_utf8",
            Self::TextUtf8 => "text_utf8",
            Self::TextTooLarge => "text_too_large",
            Self::BinaryTooLarge => "binary_too_large",
        }
    }
}
