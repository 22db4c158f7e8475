//! The `tracing` layer that turns events into lines and hands them to the [`Sink`](crate::sink::Sink).

use std::time::SystemTime;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::line::{self, FieldEncoder};
use crate::sink::Sink;

/// More enclosing spans than this are not written (the outermost ones win).
const MAX_SPANS: usize = 16;

/// Encodes every event that reaches it.
pub(crate) struct JsonLayer {
    sink: Sink,
}

impl JsonLayer {
    pub(crate) fn new(sink: Sink) -> Self {
        Self { sink }
    }
}

/// What a span contributes to the lines inside it, encoded once when the span is made.
struct SpanFields {
    encoder: FieldEncoder,
    object: String,
}

impl SpanFields {
    fn new(name: &str, encoder: FieldEncoder) -> Self {
        let mut made = Self { encoder, object: String::new() };
        made.refresh(name);
        made
    }

    fn refresh(&mut self, name: &str) {
        self.object.clear();
        self.object.push_str("{\"name\":");
        line::push_string(&mut self.object, name);
        if !self.encoder.fields.is_empty() {
            self.object.push(',');
            self.object.push_str(&self.encoder.fields);
        }
        self.object.push('}');
    }
}

impl<S> Layer<S> for JsonLayer
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut encoder = FieldEncoder::default();
        attributes.record(&mut encoder);
        span.extensions_mut().insert(SpanFields::new(span.name(), encoder));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(known) = span.extensions_mut().get_mut::<SpanFields>() {
            values.record(&mut known.encoder);
            known.refresh(span.name());
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut encoder = FieldEncoder::default();
        event.record(&mut encoder);
        if encoder.message.is_empty() {
            metadata.name().clone_into(&mut encoder.message);
        }
        let mut spans: Vec<String> = Vec::new();
        if let Some(scope) = context.event_scope(event) {
            for span in scope.from_root().take(MAX_SPANS) {
                if let Some(known) = span.extensions().get::<SpanFields>() {
                    spans.push(known.object.clone());
                }
            }
        }
        self.sink.submit(line::assemble(
            SystemTime::now(),
            *metadata.level(),
            &encoder.message,
            metadata.target(),
            &encoder.fields,
            spans.iter().map(String::as_str),
        ));
    }
}
