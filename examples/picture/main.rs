//! Draws the screen of a program as an SVG picture: `scripts/picture` makes those of the documentation with it.
//!
//! ```text
//! picture ROWS COLUMNS FILE TEXT [KEYS TEXT]... -- PROGRAM [ARGUMENT]...
//! ```
//!
//! The program runs in a terminal of so many rows and columns. When the screen has TEXT, KEYS are typed, and so on; then the screen is
//! written to FILE.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

#[path = "../../tests/common/terminal.rs"]
#[allow(dead_code)]
mod terminal;

use std::fmt::Write;
use std::process::Command;

use self::terminal::Terminal;

/// The size of a character in the picture.
const WIDTH: f32 = 8.4;
const HEIGHT: f32 = 18.0;

/// The space around the screen.
const MARGIN: f32 = 12.0;

const BACKGROUND: &str = "#1e2127";
const FOREGROUND: &str = "#d7dae0";

/// The first eight colours of a terminal, then the bright ones.
const PALETTE: [&str; 16] = [
    "#3f4451", "#e05561", "#8cc265", "#d18f52", "#4aa5f0", "#c162de", "#42b3c2", "#d7dae0",
    "#6b727f", "#ff616e", "#a5e075", "#f0a45d", "#4dc4ff", "#de73ff", "#4cd1e0", "#ffffff",
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let split = arguments.iter().position(|it| it == "--");
    let Some((picture, [_, program @ ..])) = split.and_then(|at| arguments.split_at_checked(at))
    else {
        panic!("no program");
    };
    let [rows, columns, file, first, steps @ ..] = picture else {
        panic!("ROWS COLUMNS FILE TEXT");
    };
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]);
    let (rows, columns) = (rows.parse().unwrap(), columns.parse().unwrap());
    let terminal = Terminal::start(&command, rows, columns);
    terminal.wait_for(first);
    for step in steps.chunks(2) {
        terminal.press(&step[0]);
        terminal.wait_for(&step[1]);
    }
    std::fs::write(file, terminal.look(draw)).unwrap();
}

/// The screen as SVG: a rectangle for each run of cells with a background, and a text for each run of one style.
fn draw(screen: &vt100::Screen) -> String {
    let (rows, columns) = screen.size();
    let size = |cells: u16, unit: f32| f32::from(cells) * unit + 2.0 * MARGIN;
    let (width, height) = (size(columns, WIDTH), size(rows, HEIGHT));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n\
         <g font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"14\" xml:space=\"preserve\">\n"
    );
    for row in 0..rows {
        let mut column = 0;
        while column < columns {
            let style = style(screen, row, column);
            let start = column;
            let mut text = String::new();
            while column < columns && self::style(screen, row, column) == style {
                match screen.cell(row, column).map(vt100::Cell::contents) {
                    Some("") | None => text.push(' '),
                    Some(contents) => text.push_str(contents),
                }
                column += 1;
            }
            run(&mut svg, (row, start), column - start, &text, &style);
        }
    }
    svg.push_str("</g>\n</svg>\n");
    svg
}

fn run(svg: &mut String, (row, column): (u16, u16), cells: u16, text: &str, style: &Style) {
    let x = MARGIN + f32::from(column) * WIDTH;
    let y = MARGIN + f32::from(row) * HEIGHT;
    let width = f32::from(cells) * WIDTH;
    if let Some(fill) = &style.background {
        writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\" fill=\"{fill}\"/>"
        )
        .unwrap();
    }
    if text.trim().is_empty() {
        return;
    }
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let bold = if style.bold {
        " font-weight=\"bold\""
    } else {
        ""
    };
    writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{:.1}\" textLength=\"{width:.1}\" fill=\"{}\"{bold}>{text}</text>",
        y + 13.5,
        style.foreground
    )
    .unwrap();
}

#[derive(PartialEq)]
struct Style {
    foreground: String,
    background: Option<String>,
    bold: bool,
}

fn style(screen: &vt100::Screen, row: u16, column: u16) -> Style {
    let Some(cell) = screen.cell(row, column) else {
        return Style {
            foreground: FOREGROUND.to_owned(),
            background: None,
            bold: false,
        };
    };
    let (mut foreground, mut background) = (colour(cell.fgcolor()), colour(cell.bgcolor()));
    if cell.inverse() {
        let (front, back) = (foreground, background);
        foreground = Some(back.unwrap_or_else(|| BACKGROUND.to_owned()));
        background = Some(front.unwrap_or_else(|| FOREGROUND.to_owned()));
    }
    let foreground = match foreground {
        None if cell.dim() => PALETTE[8].to_owned(),
        None => FOREGROUND.to_owned(),
        Some(colour) => colour,
    };
    Style {
        foreground,
        background,
        bold: cell.bold(),
    }
}

fn colour(colour: vt100::Color) -> Option<String> {
    match colour {
        vt100::Color::Default => None,
        vt100::Color::Idx(index) => {
            let known = PALETTE.get(usize::from(index));
            Some(known.map_or_else(|| FOREGROUND.to_owned(), |it| (*it).to_owned()))
        }
        vt100::Color::Rgb(red, green, blue) => Some(format!("#{red:02x}{green:02x}{blue:02x}")),
    }
}
